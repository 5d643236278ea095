# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until drained replicas are idle: by what this balancer's engine has in flight, and by their own metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import (
    SILENCE,
    AgentError,
    Control,
    drained_inflight,
)
from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_least
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError, Unfulfilled
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Load, Replica, side_by_side

STILL_SECONDS = 30.0  # without an engine step while requests run: what a person should know who waits
_PROGRESS_SECONDS, _PROGRESS_LINES, _PROGRESS_NAMES = 10.0, 100, 8


class DrainError(LlmopsError):
    """What is asked for cannot be meant."""


@dataclass(frozen=True)
class Wish:
    """How it is waited; seconds."""

    timeout: float = 600.0  # below 0 counts as 0: the rest of what an earlier call used up
    return_after: float = 0.0  # of this call; 0 is no limit
    interval: float = 1.0
    scrapes: int = 2  # looks in a row in which all must be idle
    fail_on_timeout: bool = True

    def __post_init__(self) -> None:
        check_least(self, DrainError, {"return_after": 0, "interval": 0.01, "scrapes": 1})


@dataclass
class Watched:
    """One replica that is waited for, as it was last seen."""

    id: str
    replica: Replica
    inflight: int | None = None  # from this balancer; None is not known
    load: Load | None = None
    problem: ApiError | None = None  # why there is no load
    moved: float = 0.0  # second at which an engine step was last seen, or nothing ran
    _steps: int = field(default=-1, init=False, repr=False)

    def see(self, inflight: int | None, answer: Load | ApiError, second: float) -> None:
        """Keep what was seen in this second of the wait."""
        self.inflight = inflight
        self.load, self.problem = (answer, None) if isinstance(answer, Load) else (None, answer)
        if self.load is not None and (not self.load.running or self.load.steps != self._steps):
            self.moved, self._steps = second, self.load.steps

    @property
    def gone(self) -> bool:
        """Whether nobody listens there."""
        return self.problem is not None and self.problem.kind == "refused"

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight and nothing runs or waits; what is not known is not idle."""
        if self.inflight != 0:
            return False
        return self.gone if self.load is None else not self.load.running and not self.load.waiting

    @property
    def left(self) -> int | None:
        """The requests that end broken when the replica is stopped now; None is not known."""
        counts = [] if self.inflight is None else [self.inflight]
        if self.load is not None:
            counts.append(self.load.running + self.load.waiting)
        return max(counts, default=None)

    def words(self, second: float) -> str:
        """What it has, for people."""
        flight = "in flight not known" if self.inflight is None else f"{self.inflight} in flight"
        if self.load is None:
            return f"{self.id} {flight}, running not known ({self.problem})"
        text = f"{self.id} {flight}, {self.load.running} running, {self.load.waiting} waiting"
        if self.load.running and second - self.moved >= STILL_SECONDS:
            text += f" (no engine step for {second - self.moved:.0f} s: its engine hangs)"
        return text


@dataclass
class Outcome:
    """What was seen."""

    msg: str
    idle: bool
    timed_out: bool
    elapsed: float
    inflight: dict[str, int | None]
    running: dict[str, int | None]
    waiting: dict[str, int | None]
    left: dict[str, int | None]
    notes: list[str] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {**vars(self), "elapsed": round(self.elapsed, 1)}


class NotIdle(Unfulfilled[Outcome]):
    """The time is over, or a replica is not drained any more; ``outcome`` says what was seen last."""


def watched(entries: Iterable[Mapping[str, str]], api_key: str, timeout: float) -> list[Watched]:
    """The replicas of the module's option, each with ``id`` and ``url``."""
    return [Watched(entry["id"], Replica(entry["url"], api_key, timeout)) for entry in entries]


class Drain:
    """One wait at one balancer."""

    def __init__(
        self,
        agent: Control,
        replicas: Sequence[Watched],
        wish: Wish,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.agent, self.replicas, self.wish = agent, list(replicas), wish
        self._ids = [one.id for one in self.replicas]
        self._sleep = sleep
        self._progress: list[str] = []
        self._told = -_PROGRESS_SECONDS
        self._heard = 0.0  # second at which the agent answered last
        if not self._ids:
            raise DrainError("replicas names none: name those that were drained")
        twice = sorted({one for one in self._ids if self._ids.count(one) > 1})
        if twice:
            raise DrainError(f"replicas names {', '.join(twice)} twice: name each once")
        began = clock()
        self.second: Callable[[], float] = lambda: clock() - began

    def wait(self) -> Outcome:
        """Wait until all are idle, the time is over, or this call is to return; NotIdle says what was seen."""
        wish, quiet = self.wish, 0
        over = max(0.0, wish.timeout)
        end = min(over, wish.return_after) if wish.return_after else over
        while True:
            try:
                self._look(self._inflight)
            except AgentError as problem:
                raise NotIdle(str(problem), self._outcome(str(problem))) from None
            now = self.second()
            quiet = quiet + 1 if self._idle else 0
            if quiet >= wish.scrapes:
                return self._outcome(f"idle after {now:.0f} s: {', '.join(self._ids)}", idle=True)
            # the looks that are still missing to be sure are taken beyond the end
            if not quiet and now >= end:
                return self._ended(now, now >= over)
            if not quiet:
                self._say(now)
            self._sleep(wish.interval if quiet else min(wish.interval, end - now))

    def glance(self) -> Outcome:
        """One look, for check mode, in which nothing was drained and the agent may not be there yet: no error."""
        silent: list[str] = []

        def inflight() -> dict[str, int | None]:
            try:
                rows = {row["id"]: row for row in self.agent.status()["replicas"]}
            except AgentError as problem:
                silent.append(str(problem))
                rows = {}
            silent.extend(f"{one} is no member of this balancer" for one in self._ids if rows and one not in rows)
            return {one: rows[one]["inflight"] if one in rows else None for one in self._ids}

        self._look(inflight)
        busy = self._busy(self.second())
        words = f"looked once in check mode: {'; '.join(busy) or 'all idle'}"
        outcome = self._outcome(words, idle=self._idle)
        outcome.notes += silent
        return outcome

    # --- looking

    def _look(self, inflight: Callable[[], Mapping[str, int | None]]) -> None:
        """See each replica once, from both sides."""
        flight = inflight()
        answers = side_by_side([_Ask(one.replica) for one in self.replicas])
        for one, answer in zip(self.replicas, answers):
            one.see(flight[one.id], answer, self.second())

    def _inflight(self) -> Mapping[str, int | None]:
        try:
            found = drained_inflight(self.agent.status(), self._ids)
        except AgentError as problem:
            # it may be restarting
            if problem.status or self.second() - self._heard > SILENCE:
                raise
            return dict.fromkeys(self._ids)
        self._heard = self.second()
        return found

    @property
    def _idle(self) -> bool:
        return all(one.idle for one in self.replicas)

    # --- words

    def _busy(self, second: float) -> list[str]:
        return [one.words(second) for one in self.replicas if not one.idle]

    def _ended(self, now: float, over: bool) -> Outcome:
        busy = "; ".join(self._busy(now))
        self._say(now, last=True)
        if not over:
            return self._outcome(f"not idle yet after {now:.0f} s: {busy}")
        text = f"not idle after {now:.0f} s: {busy}"
        elsewhere = [one.id for one in self.replicas if one.inflight == 0 and one.left]
        if elsewhere:
            text += (
                f". Nothing is in flight from this balancer to {', '.join(elsewhere)}: what runs there came through "
                "another balancer or past all of them, or its engine hangs"
            )
        if self.wish.fail_on_timeout:
            text = f"{text}. {_STAYS}"
            raise NotIdle(text, self._outcome(text, timed_out=True))
        return self._outcome(text, timed_out=True)

    def _say(self, now: float, last: bool = False) -> None:
        """Keep a line of progress, no more of them than a person would read."""
        if last or now - self._told >= _PROGRESS_SECONDS:
            self._told = now
            busy = self._busy(now)
            more = len(busy) - _PROGRESS_NAMES
            line = "; ".join(busy[:_PROGRESS_NAMES]) + (f"; and {more} more" if more > 0 else "")
            self._progress = [*self._progress, f"{now:.0f} s: {line}"][-_PROGRESS_LINES:]

    def _outcome(self, msg: str, idle: bool = False, timed_out: bool = False) -> Outcome:
        there = self.replicas
        return Outcome(
            msg=msg,
            idle=idle,
            timed_out=timed_out,
            elapsed=self.second(),
            inflight={one.id: one.inflight for one in there},
            running={one.id: None if one.load is None else one.load.running for one in there},
            waiting={one.id: None if one.load is None else one.load.waiting for one in there},
            left={one.id: one.left for one in there},
            notes=[_GONE.format(one=one) for one in there if one.gone and one.idle],
            progress=self._progress,
        )


_GONE = "{one.id} is taken for idle: nobody listens at {one.replica.url}, and nothing is in flight from this balancer"
_STAYS = (
    "What is drained stays drained. Wait longer (timeout), look what runs there (llm-balancer explain), put it back "
    "(undrain.yml), or cut what is left (fail_on_timeout=false)"
)


@dataclass(frozen=True)
class _Ask:
    """Asks one replica; what it did not answer is returned, what waiting cannot mend is raised."""

    replica: Replica

    def __call__(self) -> Load | ApiError:
        try:
            return self.replica.load()
        except ApiError as problem:
            if problem.kind == "url":
                raise
            return problem
