"""Runs ``site.yml`` against the sandbox, where it has run before, and prints what that costs.

``python -m benchmarks.site_run > benchmarks/site_run/RESULTS.md`` after ``make demo``. CPU seconds of a host are
those of its container less what its services use when nothing is played, sampled before.
"""

from __future__ import annotations

import datetime
import os
import re
import resource
import subprocess
import sys
import time

from tools.sandbox.cpu import host_cpu_seconds
from tools.sandbox.environment import for_ansible
from tools.sandbox.layout import ROOT

IDLE_SECONDS = 15
SLOWEST = 12


def main() -> int:
    """Print the table; the exit status is that of ansible-playbook."""
    before_idle = host_cpu_seconds()
    time.sleep(IDLE_SECONDS)  # a sample, not a wait: the services' own use of CPU
    idle = {name: (used - before_idle[name]) / IDLE_SECONDS for name, used in host_cpu_seconds().items()}

    env = dict(for_ansible(), ANSIBLE_CALLBACKS_ENABLED="ansible.posix.profile_tasks", ANSIBLE_NOCOLOR="1")
    load, start, hosts = os.getloadavg(), time.monotonic(), host_cpu_seconds()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["ansible-playbook", "llmops.vllm.site"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    controller = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
    used = {name: value - hosts[name] - idle[name] * wall for name, value in host_cpu_seconds().items()}

    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
        return done.returncode
    recap = dict(re.findall(r"^(\w+)\s+: (ok=\d+\s+changed=\d+)", done.stdout, re.MULTILINE))
    print("# `site.yml` on a fleet where nothing changes\n")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load average at the start {load[0]:.1f};")
    print("made by `python -m benchmarks.site_run`.\n")
    print(f"{wall:.1f} s wall, {controller:.1f} CPU-s on the controller.\n")
    print("| host | tasks | CPU-s of the run | CPU-s per minute when idle |\n|---|---|---|---|")
    for name, counts in recap.items():
        if name in used:
            print(f"| {name} | {counts} | {used[name]:.1f} | {idle[name] * 60:.1f} |")
    print(f"\nThe {SLOWEST} slowest tasks (wall seconds, all hosts side by side):\n\n| task | s |\n|---|---|")
    slowest = re.findall(r"^(.+?) -{2,} ([\d.]+)s$", done.stdout, re.MULTILINE)
    for title, seconds in slowest[:SLOWEST]:
        print(f"| {title.replace(' | ', ', ').replace('llmops.vllm.', '').replace(' : ', ': ')} | {seconds} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
