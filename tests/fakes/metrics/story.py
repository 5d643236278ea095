"""What happens in the fake fleet, by the minute of the story."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MINUTES = 40
Pools = Mapping[str, tuple[str, ...]]  # hosts by pool, each with one replica
POOLS: Pools = {"chat-h100": ("gpu1", "gpu2", "gpu3"), "short-a100": ("gpu4", "gpu5")}
MORE = ("code-h100", "long-h100", "batch-a100")  # pools of a large fleet, in which nothing happens
OLD, NEW, OTHER = "6f6073b4", "a1c9e07d", "92ab3c4f"  # the last one in all other pools
ROLLED = "chat-h100"
# Begin and end of what goes wrong, or is done on purpose.
BURST = (7.0, 9.5)
FROZEN = (12.0, 13.5)
RESTART = (13.5, 14.2)
HOT = (15.0, 19.0)
XID = (23.0, 27.0)
BROKEN = (12.0, 12.6)
FIRST_ROLLED, PER_REPLICA = 20.0, 2.5


@dataclass(frozen=True)
class State:
    """What a replica is at one moment."""

    up: bool = True
    completes: bool = True
    drained: bool = False
    in_rotation: bool = True
    version: str = OLD
    slow: float = 1.0  # times as slow as the others


def large(replicas: int) -> Pools:
    """Return the pools of a fleet of so many replicas, which are shared out evenly."""
    names = (*POOLS, *MORE)
    return {
        pool: tuple(f"gpu{number}" for number in range(first + 1, replicas + 1, len(names)))
        for first, pool in enumerate(names)
    }


def wanted(pool: str) -> str:
    """Return the revision that the inventory gives a pool."""
    return NEW if pool == ROLLED else OTHER


def replica(host: str, pool: str, minute: float, place: int) -> State:
    """Return what the replica of a host is, which has this place in its pool."""
    if pool != ROLLED:
        return State(version=OTHER)
    if host == "gpu3" and within(minute, FROZEN):
        return State(completes=False, in_rotation=minute < FROZEN[0] + 0.2)
    if host == "gpu3" and within(minute, RESTART):
        return State(up=False, completes=False, in_rotation=False)
    rolled = FIRST_ROLLED + place * PER_REPLICA
    if within(minute, (rolled, rolled + PER_REPLICA)):
        step = minute - rolled
        stopped = 1.0 <= step < 1.6
        version = OLD if step < 1.3 else NEW
        return State(up=not stopped, completes=not stopped, drained=True, in_rotation=False, version=version)
    hot = 1.8 if host == "gpu2" and within(minute, HOT) else 1.0
    return State(version=OLD if minute < rolled else NEW, slow=hot)


def load(pool: str, minute: float, replicas: int) -> float:
    """Return requests a second that clients send to a pool of so many replicas."""
    wave = 1 + 0.25 * math.sin(minute / 3.1) + 0.1 * math.sin(minute * 2.3)
    burst = 3.4 if within(minute, BURST) else 1.0
    return replicas * (1.4 * burst if pool == ROLLED else 3.75) * wave


def rollout(minute: float, replicas: int) -> bool:
    """Return whether the rollout of the pool, which has so many replicas, runs."""
    return within(minute, (FIRST_ROLLED, FIRST_ROLLED + PER_REPLICA * replicas))


def within(minute: float, span: tuple[float, float]) -> bool:
    """Return whether a moment lies in a span."""
    return span[0] <= minute < span[1]
