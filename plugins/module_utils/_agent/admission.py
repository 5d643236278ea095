# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people may ask of an agent while others need its pool: the rule, and the words in which it refuses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RUN = "rollout "  # with which a run of ours begins its name as a holder (``_rollout.run.identity``)


def is_rollout(holder: str) -> bool:
    """Whether this holder of a lease, or of a drained replica, is a run of ours."""
    return holder.startswith(RUN)


def is_another(state: str, held_by: str, wanted: str, by: str) -> bool:
    """Tell whether what is wanted differs from what was decided for a replica.

    Another state does; and a person who drains what a run of ours has drained: it is the person's from then on, and
    the next run leaves it alone. While that run lives its lease keeps the person out.
    """
    return state != wanted or (wanted == "drained" and is_rollout(held_by) and not is_rollout(by))


@dataclass(frozen=True)
class PoolState:
    """What the rule must know of a pool."""

    name: str
    in_rotation: frozenset[str]  # ids
    minimum: int  # replicas that must stay in rotation
    holder: str = ""  # of its lease, "" for none
    expires_in: float = 0.0  # seconds that the lease still holds


def pools_of(status: Mapping[str, Any]) -> list[PoolState]:
    """Read the pools out of a ``status`` document."""
    rows = status["replicas"]
    found = []
    for pool in status["pools"]:
        lease = pool["lease"] or {"holder": "", "expires_in": 0}
        inside = frozenset(row["id"] for row in rows if row["pool"] == pool["name"] and row["in_rotation"])
        found.append(PoolState(pool["name"], inside, pool["minimum"], lease["holder"], lease["expires_in"]))
    return found


def refusal(
    pools: Iterable[PoolState], members: Mapping[str, str], changed: Collection[str], drain: bool, by: str, force: bool
) -> str:
    """Say why these replicas must not be drained (or put back) by this holder; empty when they may.

    ``members`` maps each replica to its pool. ``force`` passes the minimum, never a lease: who holds it relies on it.
    """
    for pool in pools:
        own = sorted(replica for replica in changed if members[replica] == pool.name)
        if not own:
            continue
        if pool.holder and pool.holder != by:
            return (
                f"pool {pool.name} is leased by {pool.holder} for {pool.expires_in:.0f} s more: wait until that run "
                f"has ended (an unused lease ends by itself), or do it as {pool.holder}"
            )
        left = pool.in_rotation.difference(own)
        if drain and not force and len(left) < pool.minimum and left != pool.in_rotation:
            return (
                f"pool {pool.name} would have {len(left)} of its replicas in rotation, its minimum is {pool.minimum}; "
                f"in rotation now: {', '.join(sorted(pool.in_rotation))}. Put another one back first, or force it"
            )
    return ""
