# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the control socket and the agent's port offer, answered from what the agent holds."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.admission import is_another, pools_of, refusal
from ansible_collections.llmops.vllm.plugins.module_utils._agent.control import Refused, Unavailable, Unknown
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API, Administrative, Change
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import LeaseHeld, Presence

if TYPE_CHECKING:
    from ansible_collections.llmops.vllm.plugins.module_utils._agent.daemon import Agent

CONFIRM_SECONDS = 15.0  # within which the engine must confirm a change; the native form reloads for it


class Backend:
    """Answers questions and carries out what operators decide."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    # --- questions

    def status(self) -> dict[str, Any]:
        """Everything at once."""
        agent = self._agent
        return {
            "api": API,
            "agent": {
                "host": agent.config.name,
                "engine": agent.config.engine,
                "started": _iso(agent.started),
                "code": agent.code,
            },
            "balancer": {
                "state": agent.store.balancer.state,
                "synced": agent.neighbours.synced,
                "may_hold_address": agent.hold.may_hold,
            },
            "engine": {
                "alive": agent.sight.alive,
                "view": agent.sight.view,
                "wanted_view": agent.rotation.wanted.id,
                "confirmed": agent.rotation.in_force,
                "exact": agent.sight.exact,
                "reason": agent.sight.reason,
            },
            "peers": agent.neighbours.rows(),
            "generation": agent.store.generation,
            "membership": {
                "digest": agent.membership.digest,
                "writers": agent.membership.writers,
                "problems": [*agent.membership.problems, *agent.store.problems],
            },
            "pools": [self._pool(name) for name in sorted(agent.fleet.judges)],
            "replicas": [self._replica(ident) for ident in sorted(agent.fleet.members)],
        }

    def _pool(self, name: str) -> dict[str, Any]:
        agent = self._agent
        members = [ident for ident, member in agent.fleet.members.items() if member.pool == name]
        return {
            "name": name,
            "members": len(members),
            "in_rotation": sum(self._serves(ident) for ident in members),
            "minimum": agent.config.minimum,
            "panic": agent.fleet.judges[name].panic,
            "lease": agent.store.leases().get(name),
        }

    def _serves(self, ident: str) -> bool:
        agent = self._agent
        judge = agent.fleet.judges[agent.fleet.members[ident].pool]
        return agent.store.is_active(ident) and judge.verdict(ident).in_rotation

    def _replica(self, ident: str) -> dict[str, Any]:
        agent = self._agent
        member, intent = agent.fleet.members[ident], agent.store.intent(ident)
        verdict, load = agent.fleet.judges[member.pool].verdict(ident), agent.fleet.load(ident)
        return {
            "id": ident,
            "pool": member.pool,
            "address": member.address,
            "port": member.port,
            "administrative": intent.state,
            "health": verdict.health,
            "in_rotation": self._serves(ident),
            "reason": verdict.reason,
            "kind": verdict.kind,
            "held": verdict.held,
            "since": _iso(verdict.since or agent.started),
            "weight": verdict.weight,
            "inflight": agent.sight.inflight.get(ident, 0) if agent.sight.alive else None,
            "running": None if load is None else load.running,
            "waiting": None if load is None else load.waiting,
            "generation": intent.generation,
            "note": _note(intent.reason, intent.by),
            "by": intent.by,
        }

    def explain(self, ident: str) -> dict[str, Any]:
        """Why a replica is in or out, with the last numbers."""
        agent = self._agent
        if ident not in agent.fleet.members:
            raise Unknown(
                f"there is no replica {ident!r}: known are {', '.join(sorted(agent.fleet.members)) or 'none'}"
            )
        judge = agent.fleet.judges[agent.fleet.members[ident].pool]
        return {
            **self._replica(ident),
            "numbers": judge.numbers(ident),
            "history": agent.log.history(ident),
            "incident": agent.recovery.incident_of(ident),
        }

    def payload(self) -> dict[str, Any]:
        """What other balancers and the servers' watchdogs are told."""
        agent, now = self._agent, time.time()
        verdicts = agent.fleet.verdicts()
        return {
            "api": API,
            "name": agent.config.name,
            "time": now,
            "generation": agent.store.generation,
            "synced": agent.neighbours.synced,
            "admin": agent.store.admin(),
            "leases": agent.store.leases(),
            "permits": agent.recovery.permits(),
            "wedged": {
                ident: round(now - verdict.wedged_since, 1)
                for ident, verdict in verdicts.items()
                if verdict.wedged_since is not None
            },
        }

    # --- decisions

    async def set_state(
        self, replicas: Sequence[str], state: Administrative, reason: str, by: str, force: bool
    ) -> dict[str, Any]:
        """Drain replicas or put them back; returns when the engine has confirmed it."""
        agent = self._agent
        unknown = [ident for ident in replicas if ident not in agent.fleet.members]
        if unknown:
            known = ", ".join(sorted(agent.fleet.members)) or "none"
            raise Unknown(f"there is no replica {', '.join(unknown)}: known are {known}")
        intents = {ident: agent.store.intent(ident) for ident in replicas}
        before = {ident: intent.state for ident, intent in intents.items()}
        changing = [ident for ident, intent in intents.items() if is_another(intent.state, intent.by, state, by)]
        pools = {ident: member.pool for ident, member in agent.fleet.members.items()}
        reason_against = refusal(pools_of(self.status()), pools, changing, state == "drained", by, force)
        if reason_against:
            raise Refused(f"{agent.config.name}: {reason_against}")
        changed = agent.store.set(replicas, state, reason, by)
        for ident in changed:
            note, numbers = _note(reason, by), {"generation": agent.store.generation}
            agent.log.change(Change(ident, "administrative", before[ident], state, note, numbers))
        await agent.publish()
        if not await agent.rotation.settled(CONFIRM_SECONDS) and agent.sight.alive:
            raise Unavailable(
                f"{agent.config.name}: the engine did not confirm it within {CONFIRM_SECONDS:g} s; what was decided is"
                " stored and will be applied: look at `llm-balancer status`"
            )
        after = {ident: agent.store.intent(ident).state for ident in replicas}
        return {"changed": bool(changed), "before": before, "after": after, "generation": agent.store.generation}

    async def lease(self, pool: str, holder: str, seconds: float) -> dict[str, Any]:
        """Take or prolong the lease of a pool."""
        if pool not in self._agent.fleet.judges:
            raise Unknown(
                f"there is no pool {pool!r}: known are {', '.join(sorted(self._agent.fleet.judges)) or 'none'}"
            )
        try:
            return {"lease": self._agent.store.describe(self._agent.store.take_lease(pool, holder, seconds))}
        except LeaseHeld as problem:
            raise Refused(str(problem)) from None

    async def release(self, pool: str, holder: str) -> dict[str, Any]:
        """Give the lease of a pool back."""
        try:
            self._agent.store.release_lease(pool, holder)
        except LeaseHeld as problem:
            raise Refused(str(problem)) from None
        return {"lease": None}

    async def set_balancer(self, state: Presence, by: str, reason: str) -> dict[str, Any]:
        """Let this balancer hold the address, or not."""
        agent = self._agent
        before = agent.store.balancer.state
        changed = agent.store.set_balancer(state, reason, by)
        if changed:
            agent.log.event("balancer", before=before, after=state, reason=_note(reason, by))
        if state == "away":
            agent.hold.set(False)
        return {"changed": changed, "before": before, "after": state}


def _note(reason: str, by: str) -> str:
    return f"{reason} ({by})" if reason and by else reason or by


def _iso(second: float) -> str:
    moment = datetime.datetime.fromtimestamp(second, datetime.timezone.utc)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
