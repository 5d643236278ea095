# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until a replica serves the model it should serve, or until it is clear that it will not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _systemd
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Completion, Replica, revision_alias

UNKNOWN = -1
WRONG_MODEL_LOOKS = 3  # a process on its way out may still answer with the old model for a moment


class WaitError(LlmopsError):
    """The replica is not ready and waiting longer would not help, or the time is over."""


@dataclass(frozen=True)
class Wish:
    """What ready means."""

    model: str
    revision: str = ""
    completions: int = 1
    prompt: str = "Say one word:"
    max_tokens: int = 4
    timeout: float = 600.0  # below 0 counts as 0: the rest of what an earlier call used up
    return_after: float = 0.0  # of this call; 0 is no limit
    request_timeout: float = 60.0
    interval: float = 1.0
    unit: str = ""
    restarts: int = UNKNOWN  # of the unit, as an earlier call found them
    journal_lines: int = 30

    @property
    def names(self) -> list[str]:
        """The names that must be listed."""
        return [self.model, revision_alias(self.model, self.revision)] if self.revision else [self.model]


@dataclass
class Ready:
    """What was seen."""

    ready: bool = False
    elapsed: float = 0.0
    attempts: int = 0
    restarts: int = UNKNOWN
    last: str = "nothing was asked yet"
    models: list[str] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "ready": self.ready,
            "done": self.ready,
            "elapsed": round(self.elapsed, 1),
            "attempts": self.attempts,
            "restarts": self.restarts,
            "last": self.last,
            "models": self.models,
            "completions": [asdict(completion) for completion in self.completions],
        }


class UnitWatch:
    """Notices that the process of a unit ended. ``restarts`` are those that do not count: the unit had them before."""

    def __init__(self, unit: str, show: Callable[[str], _systemd.UnitState], restarts: int = UNKNOWN) -> None:
        self._unit = unit
        self._show = show
        self.restarts = restarts

    def trouble(self) -> str:
        """Why the unit will not become ready; empty while it may."""
        if not self._unit:
            return ""
        state = self._show(self._unit)
        if not state.exists:
            return f"{self._unit} does not exist on this host: install the unit before waiting for it"
        # fewer than before: somebody started it anew, and the count began again
        if self.restarts == UNKNOWN or state.restarts < self.restarts:
            self.restarts = state.restarts
        if state.down:
            never = state.active == "inactive" and not state.exit_code.strip("0")
            return f"{state.words()}: it was not started" if never else state.words()
        if state.restarts > self.restarts:
            return f"{state.words()}: its process ended while it was waited for"
        return ""


def look_once(replica: Replica, wish: Wish, seen: Ready) -> bool:
    """One look at the API; True when the wanted names are listed. Raises for what waiting cannot mend."""
    seen.attempts += 1
    try:
        seen.models = [model["id"] for model in replica.models(timeout=min(5.0, wish.request_timeout))]
    except ApiError as problem:
        seen.last = str(problem)
        if problem.status in (401, 403):
            raise
        return False
    missing = [name for name in wish.names if name not in seen.models]
    if missing:
        seen.last = f"{replica.url} lists {', '.join(seen.models) or 'no model'}; {' and '.join(missing)} is missing"
    else:
        seen.last = f"{replica.url} lists {', '.join(wish.names)}"
    return not missing


def wait(
    replica: Replica,
    wish: Wish,
    *,
    show: Callable[[str], _systemd.UnitState] = _systemd.show,
    journal: Callable[..., str] = _systemd.journal_tail,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Ready:
    """Waits for the model, then for the completions, or until this call is to return; WaitError says what was seen."""
    began = clock()
    over = max(0.0, wish.timeout)
    end = min(over, wish.return_after) if wish.return_after else over
    seen = Ready()
    watch = UnitWatch(wish.unit, show, wish.restarts)
    wrong = 0

    def second() -> float:
        return clock() - began

    def give_up(reason: str) -> WaitError:
        seen.elapsed = second()
        text = f"{replica.url} is not ready after {seen.elapsed:.0f} s: {reason}"
        if seen.attempts and seen.last not in reason:
            text += f"; last answer: {seen.last}"
        if wish.unit:
            text += f"\nLast lines of the journal of {wish.unit}:\n"
            text += journal(wish.unit, wish.journal_lines, [replica.api_key])
        return WaitError(_systemd.hide(text, [replica.api_key]))

    while True:
        trouble = watch.trouble()
        seen.restarts = watch.restarts
        if trouble:
            raise give_up(trouble)
        try:
            if look_once(replica, wish, seen):
                wrong = 0
                _complete(replica, wish, seen, second, over, end)
            elif seen.models and "is missing" in seen.last:
                wrong += 1
        except ApiError as problem:
            seen.last = str(problem)
            if problem.status in (400, 401, 403, 404, 422):
                raise give_up(str(problem)) from None
        if wrong >= WRONG_MODEL_LOOKS:
            raise give_up(f"{seen.last}: another release runs there; was it restarted?")
        seen.elapsed = second()
        if seen.ready:
            return seen
        if seen.elapsed >= over:
            raise give_up(f"the time limit of {over:g} s is over")
        if seen.elapsed >= end:
            return seen
        sleep(min(wish.interval, end - seen.elapsed))


def _complete(replica: Replica, wish: Wish, seen: Ready, second: Callable[[], float], over: float, end: float) -> None:
    """The completions that are still missing, as far as the time goes; those that were answered count."""
    while len(seen.completions) < wish.completions:
        limit = max(1.0, min(wish.request_timeout, over - second()))
        seen.completions.append(replica.complete(wish.model, wish.prompt, wish.max_tokens, timeout=limit))
        if second() >= end:
            break
    seen.ready = len(seen.completions) >= wish.completions
    seen.last = f"{replica.url} answered {len(seen.completions)} of {wish.completions} completions"
