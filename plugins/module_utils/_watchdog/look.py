# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own look at a replica: does its engine stand still while there is work?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Load, Replica
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.commands import Run

APART_SECONDS = 2.0
METRICS_SECONDS = 2.0
COMPLETION_SECONDS = 4.0
ANSWERED = "answered"
_NO_METRICS = "its /metrics cannot be read, which is no wedge: systemd deals with a dead process"
_PROPERTIES = "ActiveState,SubState,MainPID,ControlGroup,ActiveEnterTimestampMonotonic"


@dataclass(frozen=True)
class Unit:
    """What systemd says of the unit. ``age`` is in seconds since it became active."""

    active: bool
    words: str
    main_pid: int
    control_group: str
    age: float


def unit_of(name: str, run: Run) -> Unit:
    """Ask systemd; a unit that it tells nothing about is not active."""
    text = run(["systemctl", "show", "-p", _PROPERTIES, "--", name], 5).text
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    state = f"{values.get('ActiveState', 'unknown')}/{values.get('SubState', 'unknown')}"
    since = _number(values.get("ActiveEnterTimestampMonotonic", ""))
    return Unit(
        active=state == "active/running",
        words=f"{name} is {state}",
        main_pid=_number(values.get("MainPID", "")),
        control_group=values.get("ControlGroup", ""),
        age=time.monotonic() - since / 1e6,
    )


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True)
class Sight:
    """The verdict in words that stay the same while nothing changes, and the numbers behind it."""

    wedged: bool
    words: str
    numbers: dict[str, Any]


def look(url: str, keys: Sequence[str]) -> Sight:
    """Look twice, seconds apart, with a completion of one token between: a replica without work would prove nothing."""
    replica = Replica(url, keys[0] if keys else "", METRICS_SECONDS)
    began = time.monotonic()
    first, problem = _load(replica)
    if problem is not None and problem.kind != "timeout":
        return Sight(False, _NO_METRICS, {})
    told = _complete(replica)
    time.sleep(max(0.0, APART_SECONDS - (time.monotonic() - began)))
    second, problem = _load(replica)
    numbers = {"seconds": round(time.monotonic() - began, 1), "completion": told}
    if told == ANSWERED:
        return Sight(False, "it answered a completion", numbers)
    if problem is not None and problem.kind != "timeout":
        return Sight(False, _NO_METRICS, numbers)
    if first is None and second is None:
        return Sight(True, "it accepts connections and answers none", numbers)
    if first is None or second is None:
        return Sight(False, "it answers again", numbers)
    numbers |= {"steps": second.steps, "running": second.running, "waiting": second.waiting}
    if (first.steps, first.generated) != (second.steps, second.generated):
        return Sight(False, "its engine makes steps", numbers)
    if told == "timeout" or min(first.running + first.waiting, second.running + second.waiting) > 0:
        return Sight(True, "its engine makes no step while there is work", numbers)
    return Sight(False, "it has no work, and refuses some", numbers)


def _load(replica: Replica) -> tuple[Load | None, ApiError | None]:
    try:
        return replica.load(), None
    except ApiError as problem:
        return None, problem


def _complete(replica: Replica) -> str:
    """How a completion ended: answered, timeout, a status, or in what way the connection failed."""
    try:
        names = [model["id"] for model in replica.models()]
    except ApiError:
        return "not asked: its models cannot be read"
    try:
        replica.complete(names[0] if names else "", "Hello", 1, COMPLETION_SECONDS)
    except ApiError as problem:
        return str(problem.status) if problem.status else problem.kind
    return ANSWERED
