"""Plays a playbook and says what that cost: wall time, CPU of the controller, tasks of each host."""

from __future__ import annotations

import os
import pathlib
import re
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tools.checkout import collections_path
from tools.sandbox.environment import for_ansible
from tools.sandbox.layout import ROOT


@dataclass(frozen=True)
class Played:
    """One run. ``ok`` and ``changed`` are tasks by host; CPU seconds are those of the controller and its children."""

    wall: float
    controller_cpu: float
    load_before: float
    ok: Mapping[str, int]
    changed: Mapping[str, int]
    output: str


def play(playbook: str, *options: str, checkout: pathlib.Path = ROOT, expected: int = 0, **environment: str) -> Played:
    """Run a playbook of the collection in a checkout; raise with its last lines when its end is not as expected."""
    env = dict(for_ansible(), ANSIBLE_NOCOLOR="1", **environment)
    env["ANSIBLE_COLLECTIONS_PATH"] = str(collections_path(checkout))
    load, start = os.getloadavg()[0], time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["ansible-playbook", playbook, *options]
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expected:
        raise SystemExit(done.stdout[-4000:] + done.stderr[-2000:])
    recap = re.findall(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)", done.stdout, re.MULTILINE)
    return Played(
        wall,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        load,
        {host: int(ok) for host, ok, _changed in recap},
        {host: int(changed) for host, _ok, changed in recap},
        done.stdout,
    )
