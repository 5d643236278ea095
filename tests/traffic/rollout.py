"""Rollouts of the fleets: played as an operator would, and what they left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.sandbox.layout import ROOT, STATE

from .fleet import BALANCERS, Fleet, sh, status

RECORDS, LOG = STATE / "rollouts", STATE / "rollout.log"


@dataclass
class Rollout:
    """One that has ended: what it printed, the seconds it took, and its record, which is empty when it made none."""

    printed: str
    seconds: float
    record: dict[str, Any]

    def entry(self, replica: str) -> dict[str, Any]:
        """What the record says of a replica."""
        found: dict[str, Any] = next(entry for entry in self.record["entries"] if entry["id"] == replica)
        return found

    def outcomes(self) -> dict[str, str]:
        """Outcome of each entry."""
        return {entry["id"]: entry["outcome"] for entry in self.record["entries"]}


def records() -> list[str]:
    """Names of the records on this machine, the oldest first."""
    return sorted(path.name for path in RECORDS.glob("*.json"))


def play(
    fleet: Fleet, variables: dict[str, Any], *options: str, action: str = "rollout", expected: int | None = 0
) -> Rollout:
    """Play a rollout with these variables and return what it came to."""
    before, begin = set(records()), time.monotonic()
    given = {"llmops_rollout_directory": str(RECORDS), **variables}
    printed = fleet.playbook(action, "-e", json.dumps(given), *options, expected=expected)
    new = [name for name in records() if name not in before]
    record = json.loads((RECORDS / new[-1]).read_text()) if new else {}
    return Rollout(printed, time.monotonic() - begin, record)


@dataclass
class Running:
    """One that runs in the background; what it prints is in ``LOG``."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL to ansible-playbook and all its forks, as when the controller loses its power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float = 900) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(seconds)


@contextmanager
def running(fleet: Fleet, variables: dict[str, Any], action: str = "rollout") -> Iterator[Running]:
    """Play a rollout in the background; it is killed when the block is left before it ended."""
    given = {"llmops_rollout_directory": str(RECORDS), **variables}
    command, env = fleet.command(action, "-e", json.dumps(given))
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        run = Running(process)
        try:
            yield run
        finally:
            if process.poll() is None:
                run.kill()


@contextmanager
def reboots(host: str) -> Iterator[None]:
    """Let the host reboot: a container has the boot id of its machine, and nobody starts it again."""
    boot_id = "/proc/sys/kernel/random/boot_id"
    sh(host, f"cat /proc/sys/kernel/random/uuid > /run/boot_id && mount --bind /run/boot_id {boot_id}")
    name = f"llmops-{host}"
    starter = subprocess.Popen(["sh", "-c", f"docker wait {name} && docker start {name}"], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        starter.kill()
        sh(host, f"! mountpoint -q {boot_id} || umount {boot_id}")


def drained(balancer: str) -> list[str]:
    """Ids of the replicas that a rollout holds out at a balancer."""
    rows = status(balancer)["replicas"]
    return [row["id"] for row in rows if row["administrative"] == "drained" and row["by"].startswith("rollout ")]


def releases(fleet: Fleet) -> dict[str, str]:
    """The release in force of each replica."""
    look = "readlink /etc/vllm/{}/current | sed 's|.*/||'"
    return {one.id: sh(one.host, look.format(one.name)).strip() for one in fleet.replicas}


def processes(fleet: Fleet) -> dict[str, str]:
    """What changes with every start of a replica's unit."""
    return {
        one.id: sh(one.host, f"systemctl show -p InvocationID --value {one.unit}").strip() for one in fleet.replicas
    }


def leases() -> dict[str, Any]:
    """Who holds a pool, at any balancer; empty when nobody does."""
    found = {}
    for balancer in BALANCERS:
        found.update({pool["name"]: pool["lease"] for pool in status(balancer)["pools"] if pool["lease"]})
    return found


_HEADER = re.compile(r"^TASK \[([^\]|]*)")
# waits, and what takes as long as the replica takes: not the rollout's own part, nor the leases held meanwhile
_WAITS = ("Wait ", "Stop ", "Change | Start", "Ready ", "Shadow ", "Burn in ", "Watch ")


def remote_tasks(printed: str, entry: str) -> tuple[int, int]:
    """How many tasks a rollout ran on hosts for an entry, but for waits, stop, start, shadow and soak.

    And how many calls these were: a task that asks both balancers is two.
    """
    called = re.compile(rf"^(ok|changed|failed|fatal): \[{re.escape(entry)} -> (?!localhost)")
    tasks, calls, where, number, last = 0, 0, "", 0, 0
    for line in printed.splitlines():
        if header := _HEADER.match(line):
            number += 1
            where = where if header[1].startswith("Lease ") else line.removeprefix("TASK [")
        elif called.match(line) and not where.startswith(_WAITS):
            tasks, calls, last = tasks + (number != last), calls + 1, number
    return tasks, calls
