"""Rollouts of the fleets: played as an operator would, and what they left behind."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from tools.sandbox.layout import STATE

from .fleet import BALANCERS, Fleet, sh, status

RECORDS = STATE / "rollouts"


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
