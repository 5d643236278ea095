# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agents of the balancers say about a replica of this host: may it be restarted, and does none object?"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.config import Own

INCIDENT = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9-]{1,80}-[0-9a-f]{4}")  # becomes the name of a directory

Answers = Mapping[str, Mapping[str, Any]]  # payloads by the name of their agent


class Refused(LlmopsError):
    """A permit that is not acted upon; the text says why."""

    def __init__(self, incident: str, why: str) -> None:
        super().__init__(why)
        self.incident = incident


@dataclass(frozen=True)
class Permit:
    """A permit that may be acted upon. ``wedged_seconds`` is the shortest that an agent tells."""

    incident: str
    replica: str
    reason: str
    agents: tuple[str, ...]
    wedged_seconds: float


def permit_for(replica: Own, answers: Answers, handled: Container[str]) -> Permit | None:
    """Return the permit for a replica, None where none is new; Refused when an agent speaks against it."""
    offers = [entry for answer in answers.values() for entry in _offers(replica, answer) if entry[0] not in handled]
    if not offers:
        return None
    incident, reason, pool = min(offers)
    for name, answer in answers.items():
        why = _objection(replica, {replica.pool, pool}, answer)
        if why:
            raise Refused(incident, f"{name}: {why}")
    synced = [answer for answer in answers.values() if answer["synced"] is True]
    seconds = min((float(answer["wedged"][replica.id]) for answer in synced), default=None)
    if seconds is None:
        raise Refused(incident, "no agent that answers knows yet what the others do")
    return Permit(incident, replica.id, reason, tuple(sorted(answers)), seconds)


def _offers(replica: Own, answer: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    permits = answer.get("permits")
    for permit in permits if isinstance(permits, list) else []:
        if not isinstance(permit, Mapping) or permit.get("replica") != replica.id:
            continue
        incident, left = permit.get("incident"), permit.get("expires_in")
        if not isinstance(incident, str) or not INCIDENT.fullmatch(incident) or not isinstance(left, (int, float)):
            continue
        if left > 0:
            found.append((incident, str(permit.get("reason", "")), str(permit.get("pool", ""))))
    return found


def _objection(replica: Own, pools: set[str], answer: Mapping[str, Any]) -> str:
    """What an agent says against it. One that answers something else than an agent's state objects, too."""
    try:
        if answer["admin"].get(replica.id, {}).get("state", "active") != "active":
            return "the replica is drained"
        leased = sorted(pools & set(answer["leases"]))
        if leased:
            return f"pool {leased[0]} is under a rollout lease"
        # one that has just started has seen too little to speak of health
        sees_it = float(answer["wedged"].get(replica.id, -1)) >= 0  # not so for NaN, either
        if answer["synced"] is True and not sees_it:
            return "it does not see the replica wedged"
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        return f"its answer is not understood ({type(problem).__name__}: {problem})"
    return ""
