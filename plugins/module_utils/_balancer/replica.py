# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings replicas into an administrative state at one balancer, and waits until they are idle there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent import admission
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import AgentError, Control
from ansible_collections.llmops.vllm.plugins.module_utils._errors import Unfulfilled


@dataclass(frozen=True)
class Wish:
    """What is wanted."""

    replicas: tuple[str, ...]
    state: str
    wait: bool = False
    wait_timeout: float = 600.0  # seconds
    force: bool = False
    reason: str = ""
    by: str = ""


@dataclass
class Outcome:
    """What was found and done."""

    before: dict[str, str]
    after: dict[str, str]
    generation: int
    inflight: dict[str, int | None] = field(default_factory=dict)
    elapsed: float = 0.0
    taken: list[str] = field(default_factory=list)  # drained by a run before, and by a person now

    def result(self) -> dict[str, Any]:
        """What the module returns, with a diff."""
        texts = [
            "".join(f"{replica}: {state}\n" for replica, state in one.items()) for one in (self.before, self.after)
        ]
        return {
            **vars(self),
            "changed": self.before != self.after or bool(self.taken),
            "diff": {"before": texts[0], "after": texts[1]},
        }


class NotIdle(Unfulfilled[Outcome]):
    """The wait ran out; ``outcome`` says what was done and what is in flight."""


def ensure(agent: Control, wish: Wish, check: bool) -> Outcome:
    """Bring the state about (or, with ``check``, tell what would be); AgentError, or NotIdle when the wait ran out."""
    found = agent.status()
    rows = {row["id"]: row for row in found["replicas"]}
    foreign = [replica for replica in wish.replicas if replica not in rows]
    if foreign:
        there = ", ".join(rows) or "none"
        raise AgentError(f"{', '.join(foreign)}: no such replica at this balancer; there are: {there}", 404)
    before = {replica: str(rows[replica]["administrative"]) for replica in wish.replicas}
    inflight = {replica: rows[replica]["inflight"] for replica in wish.replicas}
    outcome = Outcome(before, dict.fromkeys(wish.replicas, wish.state), found["generation"], inflight)
    changed = [
        replica
        for replica in wish.replicas
        if admission.is_another(before[replica], str(rows[replica].get("by") or ""), wish.state, wish.by)
    ]
    outcome.taken = [replica for replica in changed if before[replica] == wish.state]
    if check:
        pools = {replica: str(row["pool"]) for replica, row in rows.items()}
        drain = wish.state == "drained"
        refused = admission.refusal(admission.pools_of(found), pools, changed, drain, wish.by, wish.force)
        if refused:
            raise AgentError(refused, 409)
        return outcome
    if changed:
        done = agent.set_state(wish.replicas, wish.state, wish.reason, wish.by, wish.force)
        # what the agent says counts: a peer may have told it the same a moment ago
        outcome.before, outcome.after, outcome.generation = done["before"], done["after"], done["generation"]
    if wish.wait and wish.state == "drained":
        _wait(agent, wish, outcome)
    return outcome


def _wait(agent: Control, wish: Wish, outcome: Outcome) -> None:
    try:
        waited = agent.wait_idle(wish.replicas, wish.wait_timeout)
    except AgentError as problem:
        raise NotIdle(f"{problem}. Before, these were set to drained: {', '.join(wish.replicas)}", outcome) from None
    outcome.inflight, outcome.elapsed = waited.inflight, waited.elapsed
    if not waited.idle:
        raise NotIdle(
            f"still in flight from this balancer after {waited.elapsed:.0f} s: {waited.words()}. What is drained stays "
            "drained; wait longer (wait_timeout), or put it back",
            outcome,
        )
