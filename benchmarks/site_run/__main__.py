"""Runs ``site.yml`` against the sandbox, where it has run before, and prints what that costs.

``python -m benchmarks.site_run > benchmarks/site_run/RESULTS.md`` after ``make demo``. CPU seconds of a host are
those of its container less what its services use when nothing is played, sampled before. ``--checkout DIRECTORY``
plays the collection of another checkout (an older commit, say) against the same hosts.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import re
import sys
import time

from benchmarks.playing import play
from tools.sandbox.cpu import host_cpu_seconds
from tools.sandbox.layout import ROOT

IDLE_SECONDS = 15
SLOWEST = 12


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=pathlib.Path, default=ROOT)
    checkout = parser.parse_args().checkout.resolve()
    before_idle = host_cpu_seconds()
    time.sleep(IDLE_SECONDS)  # a sample, not a wait: the services' own use of CPU
    idle = {name: (used - before_idle[name]) / IDLE_SECONDS for name, used in host_cpu_seconds().items()}

    hosts = host_cpu_seconds()
    callbacks = "ansible.posix.profile_tasks"
    played = play("llmops.vllm.site", checkout=checkout, ANSIBLE_CALLBACKS_ENABLED=callbacks)
    used = {name: value - hosts[name] - idle[name] * played.wall for name, value in host_cpu_seconds().items()}

    print("# `site.yml` on a fleet where nothing changes\n")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load average at the start {played.load_before:.1f};")
    print("made by `python -m benchmarks.site_run`.\n")
    print(f"{played.wall:.1f} s wall, {played.controller_cpu:.1f} CPU-s on the controller.\n")
    print("| host | ok | changed | CPU-s of the run | CPU-s per minute when idle |\n|---|---|---|---|---|")
    for name, ok in played.ok.items():
        if name in used:
            print(f"| {name} | {ok} | {played.changed[name]} | {used[name]:.1f} | {idle[name] * 60:.1f} |")
    print(f"\nThe {SLOWEST} slowest tasks (wall seconds, all hosts side by side):\n\n| task | s |\n|---|---|")
    slowest = re.findall(r"^(.+?) -{2,} ([\d.]+)s$", played.output, re.MULTILINE)
    for title, seconds in slowest[:SLOWEST]:
        print(f"| {title.replace(' | ', ', ').replace('llmops.vllm.', '').replace(' : ', ': ')} | {seconds} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
