# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes, prolongs and gives back the leases of pools at one balancer: all that are asked for, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import AgentError, Control
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import MAX_LEASE
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError, Unfulfilled

Leases = dict[str, Optional[dict[str, Any]]]  # of each pool, holder and expires_in; None for no lease


class LeaseError(LlmopsError):
    """What is asked for cannot be meant."""


@dataclass(frozen=True)
class Wish:
    """What is wanted."""

    pools: tuple[str, ...]
    holder: str
    seconds: float = 120.0
    takeover: tuple[str, ...] = ()  # holders of whom it is known that they are dead

    def __post_init__(self) -> None:
        if not self.holder.strip():
            raise LeaseError("holder is empty: give the name that balancer_replica will be given as by")
        if not 0 < self.seconds <= MAX_LEASE:
            raise LeaseError(f"seconds is {self.seconds:g}: a number above 0, up to {MAX_LEASE:.0f}, is wanted")


@dataclass
class Outcome:
    """What was found and done."""

    before: Leases
    leases: Leases
    notes: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """What the module returns; a lease that is only prolonged is no change."""
        was, now = _holders(self.before), _holders(self.leases)
        texts = ["".join(f"{pool}: {holder or 'nobody'}\n" for pool, holder in one.items()) for one in (was, now)]
        return {**vars(self), "changed": was != now, "diff": {"before": texts[0], "after": texts[1]}}


class NotHeld(Unfulfilled[Outcome]):
    """Not every lease could be had; ``outcome`` says what is so now."""


def hold(agent: Control, wish: Wish, check: bool) -> Outcome:
    """Take the leases or prolong one's own; NotHeld when another has one, and then none was newly taken."""
    if not wish.pools:
        raise LeaseError("pools names none: without a lease, somebody else may drain what is rolled")
    outcome = Outcome(found := _leases(agent, wish.pools), dict(found))
    mine = (wish.holder, *wish.takeover)
    foreign = {pool: lease for pool, lease in found.items() if lease is not None and lease["holder"] not in mine}
    if foreign:
        raise NotHeld(f"{_words(foreign)}: {_MEND}. Nothing was taken", outcome)
    taken: list[str] = []
    for pool in wish.pools:
        lease = found[pool]
        own = lease is not None and lease["holder"] == wish.holder
        if not own:
            taken.append(pool)  # before it is asked for: an answer that is lost may have been a yes
        try:
            if lease is not None and not own:
                _take_over(agent, pool, lease, outcome, check)
            asked = {"holder": wish.holder, "expires_in": wish.seconds}
            outcome.leases[pool] = asked if check else agent.lease(pool, wish.holder, wish.seconds)["lease"]
        except AgentError as problem:
            raise NotHeld(f"{_refused(problem)}. {_give_back(agent, wish, taken, outcome)}", outcome) from None
    return outcome


def release(agent: Control, wish: Wish, check: bool) -> Outcome:
    """Give back the leases that the holder has; one of somebody else stays and is told."""
    outcome = Outcome(found := _leases(agent, wish.pools), dict(found))
    for pool, lease in found.items():
        if lease is None:
            continue
        if lease["holder"] != wish.holder:
            outcome.notes.append(f"{_words({pool: lease})}, not by {wish.holder}: left alone")
            continue
        if not check:
            try:
                agent.release(pool, wish.holder)
            except AgentError as problem:
                if problem.status != 409:
                    left = f"{lease['expires_in']:.0f} s"
                    raise NotHeld(f"{problem}. What was not given back ends by itself within {left}", outcome) from None
                # it ended, and somebody took it a moment ago
                outcome.notes.append(f"{problem}. Left alone")
                outcome.leases.update(_leases(agent, [pool]))
                continue
        outcome.leases[pool] = None
    return outcome


_MEND = (
    "wait until that run has ended (an unused lease ends by itself); if its process is known to be gone, name it in "
    "takeover: -e llmops_rollout_takeover='...', the whole name"
)


def _leases(agent: Control, pools: Iterable[str]) -> Leases:
    known = {str(row["name"]): row["lease"] for row in agent.status()["pools"]}
    unknown = [pool for pool in pools if pool not in known]
    if unknown:
        there = ", ".join(known) or "none"
        raise AgentError(f"{', '.join(unknown)}: no such pool at this balancer; there are: {there}", 404)
    return {pool: known[pool] for pool in pools}


def _take_over(agent: Control, pool: str, lease: Mapping[str, Any], outcome: Outcome, check: bool) -> None:
    """Release the lease in the name of a dead holder: the agent lets nobody else do it."""
    if not check:
        agent.release(pool, lease["holder"])
    outcome.leases[pool] = None
    done = "would be" if check else "was"
    outcome.notes.append(f"{_words({pool: lease})}, who is said to be dead: it {done} taken over")


def _give_back(agent: Control, wish: Wish, taken: Sequence[str], outcome: Outcome) -> str:
    """Undo what this call took, and say what is so now."""
    back: list[str] = []
    for number, pool in enumerate(taken):
        had = outcome.leases[pool]
        try:
            agent.release(pool, wish.holder)
        except AgentError as problem:
            if problem.status != 409:  # 409 is the agent's word that another has it; else nothing is known
                told = f"Given back: {', '.join(back)}. " if back else ""
                left = ", ".join(taken[number:])
                return f"{told}Perhaps held: {left} ({problem}); unused, it ends within {wish.seconds:g} s"
        if had is not None and had["holder"] == wish.holder:
            back.append(pool)
            outcome.leases[pool] = None
    with contextlib.suppress(AgentError):
        outcome.leases = _leases(agent, wish.pools)
    return f"Given back: {', '.join(back)}" if back else "Nothing was taken"


def _refused(problem: AgentError) -> str:
    # somebody was quicker than this call; the agent's words name the holder and the seconds
    return f"{problem} (an unused lease ends by itself)" if problem.status == 409 else str(problem)


def _words(leases: Mapping[str, Mapping[str, Any] | None]) -> str:
    told = (
        f"pool {pool} is leased by {lease['holder']} for {lease['expires_in']:.0f} s more"
        for pool, lease in leases.items()
        if lease is not None
    )
    return ", ".join(told)


def _holders(leases: Leases) -> dict[str, str]:
    return {pool: "" if lease is None else str(lease["holder"]) for pool, lease in leases.items()}
