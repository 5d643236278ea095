"""How the time of ``site.yml`` grows with hosts and forks, where nothing changes any more.

``python -m benchmarks.site_scale > benchmarks/site_scale/RESULTS.md`` after ``make demo`` (it uses the sandbox's image,
network and wheels). Hosts are containers with the FAKE vLLM; all of them and the controller share this machine's
cores, so wall times are upper bounds and the CPU seconds are what carries over.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys

from benchmarks.playing import play
from benchmarks.site_scale import hosts
from tools.sandbox.cpu import container_cpu_seconds


def say(text: str) -> None:
    """Tell the person who waits; standard output is the table."""
    print(text, file=sys.stderr, flush=True)


def site(forks: int) -> tuple[float, float, float, int, int]:
    """Play site.yml; return wall, controller CPU, CPU of all hosts, tasks of a host, and changes."""
    names = [hosts.host(number).container for number in range(50)]
    before = {name: seconds for name in names if (seconds := container_cpu_seconds(name)) is not None}
    played = play("llmops.vllm.site", "-i", str(hosts.INVENTORY), "--forks", str(forks))
    used = sum((container_cpu_seconds(name) or 0) - seconds for name, seconds in before.items())
    return played.wall, played.controller_cpu, used, max(played.ok.values()), sum(played.changed.values())


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 10, 25, 50])
    parser.add_argument("--forks", type=int, nargs="+", default=[5, 10, 50])
    arguments = parser.parse_args()
    with hosts.room_for_many():
        measure(arguments.hosts, arguments.forks)
    return 0


def measure(counts: list[int], numbers_of_forks: list[int]) -> None:
    """Bring up hosts, play, print a row for each run, remove the hosts."""
    hosts.remove()
    try:
        hosts.prepare()
        hosts.write_inventory(1)
        hosts.start(1)
        say("==> the first host, from bare")
        site(1)
        hosts.copy_first()
        print("# `site.yml` by hosts and forks, nothing to change\n")
        print(f"{datetime.date.today()}, {os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f};")
        print("made by `python -m benchmarks.site_scale`.\n")
        print(
            "| hosts | forks | wall s | s per host | controller CPU-s per host | CPU-s on each host | tasks of a host |"
        )
        print("|---|---|---|---|---|---|---|")
        for count in counts:
            hosts.write_inventory(count)
            hosts.start(count, hosts.IMAGE)
            say(f"==> {count} hosts: to the state of the inventory")
            site(10)
            for forks in [n for n in numbers_of_forks if n <= max(count, min(numbers_of_forks))]:
                say(f"==> {count} hosts, {forks} forks")
                wall, controller, used, tasks, changed = site(forks)
                if changed:
                    raise SystemExit(f"{changed} tasks changed something: not a run where nothing changes")
                print(
                    f"| {count} | {forks} | {wall:.0f} | {wall / count:.2f} | {controller / count:.2f} "
                    f"| {used / count:.2f} | {tasks} |",
                    flush=True,
                )
    finally:
        hosts.remove()


if __name__ == "__main__":
    sys.exit(main())
