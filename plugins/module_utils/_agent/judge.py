# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges the replicas of one pool: who is in rotation, as far as health goes. Pure: no clock, file or socket inside.

Facts (connections are refused) hold always. Everything else is a judgement and stops at the floor: a pool that looks
bad as a whole has a problem that no ejection mends.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Due, Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import (
    Administrative,
    Change,
    Health,
    Observed,
    Scrape,
    Verdict,
)
from ansible_collections.llmops.vllm.plugins.module_utils._agent.replica_health import ConnectWord, ReplicaHealth
from ansible_collections.llmops.vllm.plugins.module_utils._agent.wakefulness import WakefulClock

_ASSESS_SECONDS = 1.0


class PoolJudge:
    """The replicas of one pool. Ids that it does not know are passed over: a probe may end after its replica left."""

    def __init__(self, pool: str, limits: Limits, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.pool, self._limits, self._wall = pool, limits, wall
        self._clock = WakefulClock(clock, limits.agent_gap)
        self._replicas: dict[str, ReplicaHealth] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._changes: list[Change] = []
        self._assessed = self._clock()
        self.panic = False

    def set_members(self, ids: Sequence[str], remembered: Mapping[str, bool] | None = None) -> None:
        """Make these the members. ``remembered``: who was in rotation when the agent ended; they start as they were."""
        remembered = remembered or {}
        self._replicas = {ident: self._replicas.get(ident) or self._new(ident, remembered) for ident in sorted(ids)}
        self._verdicts = {ident: self._verdicts[ident] for ident in self._replicas if ident in self._verdicts}
        self.tick()

    def _new(self, ident: str, remembered: Mapping[str, bool]) -> ReplicaHealth:
        return ReplicaHealth(ident, self._limits, self._clock, remembered.get(ident, False))

    def administer(self, ident: str, state: Administrative) -> None:
        """Note what operators decided: drained replicas do not count for the floor and get no completions."""
        replica = self._replicas.get(ident)
        if replica is not None and replica.administrative != state:
            replica.administrative = state
            if state == "active":
                replica.hurry(self._clock(), completion=True)

    # --- what was measured

    def connected(self, ident: str, word: ConnectWord) -> None:
        """A connect ended: ``ok``, ``refused``, ``timeout`` or ``broken``."""
        if ident in self._replicas:
            self._replicas[ident].connected(word, self._clock())

    def scraped(self, ident: str, scrape: Scrape | None, word: str, began: float) -> None:
        """A reading of /metrics ended that began at that second of the clock."""
        if ident in self._replicas:
            self._replicas[ident].scraped(scrape, word, began, self._clock())

    def completed(self, ident: str, word: str, seconds: float, status: int, began: float) -> None:
        """A completion ended: ``ok``, ``busy`` (503), ``error``, ``garbage``, ``timeout``, ``refused``, ``broken``."""
        replica = self._replicas.get(ident)
        if replica is None:
            return
        now = self._clock()
        replica.completed(word, seconds, status, began, now)
        if word == "ok" and replica.bad is not None:
            limit = max(self._limits.latency_eject, self._allowed(replica))
            replica.good_round(limit, now)

    def observed(self, ident: str, seen: Observed) -> None:
        """The engine's counters of this replica were read."""
        if ident in self._replicas:
            self._replicas[ident].observed(seen, self._clock())

    # --- what follows

    def due(self, ident: str) -> Due:
        """When the next probes of a member start."""
        return self._replicas[ident].due()

    def verdict(self, ident: str) -> Verdict:
        """Where a member stands."""
        return self._verdicts[ident]

    def changes(self) -> list[Change]:
        """What changed since the last call."""
        found, self._changes = self._changes, []
        return found

    def tick(self) -> None:
        """Let time pass, and decide."""
        now = self._clock()
        for replica in self._replicas.values():
            replica.tick(now)
        if now - self._assessed >= _ASSESS_SECONDS:
            self._assessed = now
            for replica in self._replicas.values():
                replica.assess(now)
            for replica in self._replicas.values():
                replica.slow_against(max(self._limits.latency_eject, self._allowed(replica)), now)
        self._decide(now)

    def _allowed(self, replica: ReplicaHealth) -> float:
        """Seconds to the first token that the others of the pool make look normal; without end when none is known."""
        healthy = [each for each in self._replicas.values() if each.bad is None and each.administrative == "active"]
        others = [each.latency for each in healthy if each is not replica and each.latency is not None]
        if not others:
            return float("inf") if replica.bad is None else 0.0
        return self._limits.latency_factor * statistics.median(others)

    def _decide(self, now: float) -> None:
        active = [replica for replica in self._replicas.values() if replica.administrative == "active"]
        judged = [replica for replica in active if replica.kind == "judgement"]
        facts = sum(replica.kind == "fact" for replica in active)
        self._note_panic(2 * len(judged) > len(active), len(judged), len(active))
        # Those that are out already stay first: a place is not handed to and fro.
        judged.sort(key=lambda replica: (self._is_in(replica.id), replica.bad.since if replica.bad else 0))
        if self.panic:
            judged = [replica for replica in judged if replica.bad is not None and replica.bad.wedged]
        room = max(1, int(self._limits.max_out_percent / 100 * len(active))) if len(active) > 1 else 0
        out = {replica.id for replica in judged[: max(0, room - facts)]}
        whole = bool(active) and all(replica.degraded and replica.bad is None for replica in active)
        for replica in self._replicas.values():
            # the floor protects those that get requests: it says nothing about a drained one
            drained_and_bad = replica.administrative == "drained" and replica.bad is not None
            self._settle(replica, replica.kind == "fact" or drained_and_bad or replica.id in out, whole, now)

    def _is_in(self, ident: str) -> bool:
        verdict = self._verdicts.get(ident)
        return verdict is None or verdict.in_rotation

    def _note_panic(self, panic: bool, bad: int, members: int) -> None:
        if panic == self.panic:
            return
        self.panic = panic
        words = ("calm", "panic") if panic else ("panic", "calm")
        reason = f"pool {self.pool}: {bad} of {members} active replicas look bad"
        numbers = {"pool": self.pool, "bad": bad, "members": members}
        self._changes.append(Change("", "panic", *words, reason, numbers))

    def _settle(self, replica: ReplicaHealth, out: bool, whole: bool, now: float) -> None:
        """Make the verdict of a replica, and a change when it differs from the last one."""
        bad, last = replica.bad, self._verdicts.get(replica.id)
        health: Health = "down" if bad is not None else "degraded" if replica.degraded else "up"
        since = last.since if last is not None else 0.0
        if last is not None and last.in_rotation == out:
            since = self._wall()
        wedged = bad is not None and bad.wedged and replica.still_since is not None
        verdict = Verdict(
            health=health,
            in_rotation=not out,
            weight=self._limits.degraded_weight if health == "degraded" and not whole else 1.0,
            reason=bad.reason if bad is not None else replica.degraded,
            kind=bad.kind if bad is not None else "",
            held=bad is not None and not out,
            since=since,
            wedged_since=self._wall() - (now - (replica.still_since or now)) if wedged else None,
        )
        self._verdicts[replica.id] = verdict
        before, after = _word(last), _word(verdict)
        if last is not None and before != after:
            numbers = replica.numbers(now)
            self._changes.append(Change(replica.id, "health", before, after, verdict.reason or "healthy", numbers))

    def numbers(self, ident: str) -> dict[str, Any]:
        """The last measurements of a member, for people."""
        return self._replicas[ident].numbers(self._clock())


def _word(verdict: Verdict | None) -> str:
    """The state of a replica in one word: ``held`` is one that should be out and is kept in."""
    if verdict is None:
        return ""
    return "held" if verdict.held else verdict.health
