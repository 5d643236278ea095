# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for traffic and compares new replicas with old ones, or records what old ones do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_least
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary import (
    SCARCE,
    Limits,
    Model,
    Side,
    errors,
    judge,
    notes,
)
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_reading import CanaryError, counts_from, number
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_watch import Watched, look, side
from ansible_collections.llmops.vllm.plugins.module_utils._gate.comparison import NOT_COMPARED, WORSE, Verdict
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError

VERSION = 1  # of what is handed from call to call
WATCHING, RECORDED = "watching", "recorded"
_PROGRESS_SECONDS, _PROGRESS_LINES = 10.0, 100


@dataclass(frozen=True)
class Wish:
    """How it is watched; seconds and requests."""

    limits: Limits = field(default_factory=Limits)
    ignore: int = 50  # first requests of each new replica
    soak: float = 60.0  # the least duration of the comparison
    timeout: float = 600.0  # of the whole watch, over all calls
    return_after: float = 0.0  # of this call; 0 is no limit
    interval: float = 5.0

    def __post_init__(self) -> None:
        least = {"ignore": 0, "soak": 0, "return_after": 0, "timeout": self.soak, "interval": 0.01}
        check_least(self, CanaryError, least)


@dataclass
class Outcome:
    """What was found."""

    verdict: str
    msg: str
    elapsed: float  # seconds, over all calls
    new: Side | None = None
    old: Side | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)
    watch: dict[str, Any] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        sides = {"new": self.new.figures() if self.new else {}, "old": self.old.figures() if self.old else {}}
        against = self.old.label if self.old else ""
        return {**vars(self), **sides, "against": against, "elapsed": round(self.elapsed, 1)}


class Run:
    """One watch, which may take several calls of the module."""

    def __init__(
        self,
        new: Sequence[Watched],
        old: Sequence[Watched],
        wish: Wish,
        *,
        record: Side | None = None,
        watch: Any = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.new, self.old, self.wish, self.record = list(new), list(old), wish, record
        self._all = [*self.new, *self.old]
        self._sleep = sleep
        self._before = 0.0  # seconds of earlier calls
        self._base_at: float | None = None
        self._progress: list[str] = []
        self._told = -_PROGRESS_SECONDS
        self._last_words = "nothing was read yet"
        ids = [one.id for one in self._all]
        if len(set(ids)) < len(ids):
            twice = sorted({one for one in ids if ids.count(one) > 1})
            raise CanaryError(f"{', '.join(twice)} is named twice: a replica is either new or old")
        if watch:
            self._go_on(watch)
        began = clock()
        self.second: Callable[[], float] = lambda: self._before + clock() - began

    # --- from call to call

    def _go_on(self, data: Any) -> None:
        kept = data.get("replicas") if isinstance(data, Mapping) and data.get("version") == VERSION else None
        if not isinstance(kept, Mapping) or not {"seconds", "base_at"} <= set(data):
            raise CanaryError("watch is not what an earlier call of this module returned: give that unchanged")
        ids = [one.id for one in self._all]
        if sorted(kept) != sorted(ids):
            raise CanaryError(f"watch is of {', '.join(sorted(kept))}, but new and old name {', '.join(sorted(ids))}")
        self._before = number(data["seconds"], "watch.seconds")
        self._base_at = None if data["base_at"] is None else number(data["base_at"], "watch.base_at")
        for one in self._all:
            one.go_on(kept[one.id], f"watch.replicas.{one.id}")

    def _watch(self) -> dict[str, Any]:
        replicas = {one.id: one.data() for one in self._all}
        return {"version": VERSION, "seconds": self.second(), "base_at": self._base_at, "replicas": replicas}

    # --- comparing

    def compare(self) -> Outcome:
        """Watch until there is a verdict, the time is over, or this call is to return."""
        if not self.new:
            raise CanaryError("new names no replica: there is nobody to watch")
        return self._until(self._compared)

    def _until(self, step: Callable[[bool], Outcome | None]) -> Outcome:
        end = self._before + self.wish.return_after if self.wish.return_after else None
        while True:
            look(self._all, self.second)
            now = self.second()
            found = step(now >= self.wish.timeout)
            if found is not None:
                return found
            wait = min(self.wish.interval, max(0.01, self.wish.timeout - now))
            if end is not None and now + wait > end:
                return self._outcome(WATCHING, f"watching: {self._last_words}")
            self._sleep(wait)

    def _compared(self, over: bool) -> Outcome | None:
        now = self.second()
        broken = [one.lost or one.stands_still(now) for one in self.new]
        if any(broken):
            return self._outcome(WORSE, f"worse: {'; '.join(words for words in broken if words)}")
        against = self._against()
        if against is None:
            return self._alone(over)
        if failing := self._failing():
            return failing
        if self._base_at is None and not self._ignored():
            cold = ", ".join(f"{one.id} {seen:.0f}" for one, seen in self._cold())
            words = f"of the first {self.wish.ignore} requests, which are ignored, came: {cold}"
            if over:
                return self._outcome(SCARCE, f"not enough traffic: {words}{self._since_return()}")
            self._say(words)
            return None
        for one in self.old:  # one that did not answer when the comparison began
            one.base = one.base or one.last
        return self._judged(side("new", self.new), against, over)

    def _alone(self, over: bool) -> Outcome | None:
        """Nobody to compare with: what remains is that the new ones live through the soak."""
        lost = "; ".join(one.lost for one in self.old)
        words = f"no old replica is left to compare with ({lost})" if lost else "there is nobody to compare with"
        if over or self.second() >= self.wish.soak:
            return self._outcome(SCARCE, f"not enough traffic: {words}{self._since_return()}")
        self._say(words)
        return None

    def _failing(self) -> Outcome | None:
        """Spoiled requests: no cold cache excuses the first ones, and they are not watched to the end of the soak."""
        new, old = side("new", self.new, "first"), self._against("first")
        if old is None or errors(new, old, self.wish.limits).result != WORSE:
            return None
        found = judge(new, old, self.wish.limits)
        return self._outcome(found.verdict, found.words, found, new, old)

    def _against(self, since: str = "base") -> Side | None:
        """The old side: replicas that answer, else the record."""
        if any(not one.lost for one in self.old):
            return side("old", self.old, since)
        return self.record

    def _judged(self, new: Side, old: Side, over: bool) -> Outcome | None:
        limits = self.wish.limits
        verdict = judge(new, old, limits)
        soaked = self.second() - (self._base_at or 0.0) >= self.wish.soak
        if over or (soaked and verdict.verdict != SCARCE):
            more = self._since_return() if verdict.verdict == SCARCE else ""
            return self._outcome(verdict.verdict, verdict.words + more, verdict, new, old)
        self._say(verdict.words if verdict.verdict == SCARCE else f"soaking, so far {verdict.words}")
        return None

    def _cold(self) -> list[tuple[Watched, float]]:
        """New replicas that have not had the requests that are ignored, with those that they had."""
        had = [(one, side("new", [one], "first").counts.seen) for one in self.new]
        return [(one, seen) for one, seen in had if seen < self.wish.ignore or one.last is None]

    def _ignored(self) -> bool:
        """Whether the first requests are past; then the comparison begins, on both sides at the same moment."""
        if self._cold():
            return False
        self._base_at = self.second()
        for one in self._all:
            one.base = one.last
        return True

    def _since_return(self) -> str:
        """What came to the new replicas altogether: failures show here even where they are too few to judge."""
        came = side("new", self.new, "first").counts
        return f"; since the watch began {came.seen:.0f} requests came and {came.errors:.0f} of them failed"

    def glance(self) -> Outcome:
        """One look, for check mode: whether everybody could be asked. What runs may be older than the key: no error."""
        silent: list[str] = []
        try:
            look(self._all, self.second)
            silent = [one.problem for one in self._all if one.problem]
        except ApiError as problem:
            silent = [str(problem)]
        there = [one.id for one in self._all if one.last is not None]
        words = f"read once in check mode, nothing was compared: {', '.join(there) or 'nobody answered'}"
        return self._outcome(NOT_COMPARED, "; ".join([words, *silent]))

    # --- recording

    def note_down(self) -> tuple[Outcome, dict[str, Any]]:
        """Record what the old replicas do; the record is returned even when it is of too little traffic."""
        if not self.old:
            raise CanaryError("old names no replica: there is nothing to record")
        found = self._until(self._recorded)
        told = found.old or Side("record", side("old", self.old).counts)
        model = asdict(told.model) if told.model else None
        record = {"version": VERSION, "seconds": round(found.elapsed, 1), "model": model, "counts": asdict(told.counts)}
        return found, {**record, "replicas": list(told.replicas)}

    def _recorded(self, over: bool) -> Outcome | None:
        for one in self.old:
            one.base = one.base or one.last
        if all(one.lost for one in self.old):
            raise CanaryError(f"nothing can be recorded: {'; '.join(one.lost for one in self.old)}")
        told, limits = side("record", self.old), self.wish.limits
        c = told.counts
        least = min(c.started, c.itl_count, c.answered, c.output_count - c.one_token)
        who = f"{len(told.replicas)} replica{'s' * (len(told.replicas) != 1)}"
        words = f"{max(0.0, least):.0f} requests at {who} ({limits.samples} are needed)"
        if least >= limits.samples and self.second() >= self.wish.soak:
            return self._outcome(RECORDED, f"recorded {words}", old=told)
        if over:
            return self._outcome(SCARCE, f"not enough traffic: recorded {words}", old=told)
        self._say(words)
        return None

    # --- words

    def _say(self, words: str) -> None:
        """Keep a line of progress, no more of them than a person would read."""
        self._last_words = words
        if self.second() - self._told >= _PROGRESS_SECONDS:
            self._told = self.second()
            self._progress = [*self._progress, f"{self._told:.0f} s: {words}"][-_PROGRESS_LINES:]

    def _outcome(
        self, verdict: str, msg: str, judged: Verdict | None = None, new: Side | None = None, old: Side | None = None
    ) -> Outcome:
        new = new or (side("new", self.new) if self.new else None)
        old = old or (self._against() if self.new else None)
        told = [one.lost for one in self.old if one.lost]
        if new and old and judged:
            told += notes(new, old, self.wish.limits)
        checks = judged.result() if judged else []
        return Outcome(verdict, msg, self.second(), new, old, checks, told, self._progress, self._watch())


def record_from(data: Any) -> Side | None:
    """A record that an earlier call returned; None for none, CanaryError for what is not one."""
    if not data:
        return None
    what = "record is not what state=recorded returned: give that unchanged"
    if not isinstance(data, Mapping) or data.get("version") != VERSION or "counts" not in data:
        raise CanaryError(what)
    model = data.get("model")
    if model is not None and (not isinstance(model, Mapping) or set(model) != set(asdict(Model()))):
        raise CanaryError(what)
    known = Model(**{name: str(value) for name, value in model.items()}) if model else None
    replicas = tuple(str(one) for one in data.get("replicas") or ())
    return Side("record", counts_from(data["counts"], "record.counts"), known, replicas)
