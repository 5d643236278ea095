# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replicas that are watched: reads them again and again, and notices those that die, restart or stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._gate import canary_reading
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary import Model, Side
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_reading import CanaryError, Reading, total
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import (
    ApiError,
    Replica,
    model_and_revision,
    side_by_side,
)

LOST_AFTER = 3  # looks in a row without an answer
STILL_SECONDS = 30.0  # without an engine step while requests are there


@dataclass
class Watched:
    """One replica that is watched."""

    id: str
    replica: Replica
    model: Model | None = None
    first: Reading | None = None  # when the watch began
    base: Reading | None = None  # when the comparison began
    last: Reading | None = None
    moved: float = 0.0  # second of the watch at which an engine step was last seen, or nothing was there to do
    failures: int = 0  # looks in a row that it did not answer
    problem: str = ""  # the last of them, in words
    lost: str = ""  # why it is watched no longer

    def take(self, reading: Reading, second: float) -> None:
        """Keep a reading of this second of the watch."""
        self.failures, self.problem = 0, ""
        before = self.last
        if before is not None and reading.anew(before):
            self.lost = f"{self.id} was started anew while it was watched"
            return
        idle = not reading.running and not reading.waiting
        if before is None or idle or reading.counts.steps > before.counts.steps:
            self.moved = second
        self.first = self.first or reading
        self.last = reading

    def miss(self, problem: ApiError) -> None:
        """Keep in mind that it did not answer."""
        self.failures += 1
        self.problem = f"{self.id} does not answer: {problem}"
        if self.failures >= LOST_AFTER:
            self.lost = self.problem

    def stands_still(self, second: float) -> str:
        """Why it does not generate, empty while it does."""
        if self.last is None or second - self.moved < STILL_SECONDS:
            return ""
        there = f"{self.last.running} requests run and {self.last.waiting} wait"
        return f"{self.id} does not generate: {there}, and no engine step was made for {second - self.moved:.0f} s"

    def data(self) -> dict[str, Any]:
        """As it is handed to the next call of the module."""
        told = {name: getattr(self, name) for name in ("first", "base", "last")}
        readings = {name: None if reading is None else reading.data() for name, reading in told.items()}
        return {**readings, "moved": self.moved, "failures": self.failures, "lost": self.lost}

    def go_on(self, data: Any, what: str) -> None:
        """Go on where an earlier call ended; CanaryError for data that is not its."""
        if not isinstance(data, Mapping) or set(data) != set(self.data()):
            raise CanaryError(f"{what} is not what an earlier call of this module returned: give that unchanged")
        for name in ("first", "base", "last"):
            if data[name] is not None:
                setattr(self, name, canary_reading.reading_from(data[name], f"{what}.{name}"))
        self.moved = canary_reading.number(data["moved"], f"{what}.moved")
        self.failures = int(canary_reading.number(data["failures"], f"{what}.failures"))
        self.lost = str(data["lost"])


def watched(entries: Iterable[Mapping[str, str]], api_key: str, timeout: float) -> list[Watched]:
    """The replicas of an option of the module, each with ``id`` and ``url``."""
    return [Watched(entry["id"], Replica(entry["url"], api_key, timeout)) for entry in entries]


def look(replicas: Iterable[Watched], clock: Callable[[], float]) -> None:
    """Read all that are not lost, side by side; ``clock`` tells the second of the watch."""
    there = [one for one in replicas if not one.lost]
    asked = side_by_side([_Ask(one) for one in there])
    for one, answer in zip(there, asked):
        if isinstance(answer, Reading):
            one.take(answer, clock())
        else:
            one.miss(answer)


@dataclass
class _Ask:
    """Asks one replica; what it did not answer is returned, what waiting cannot mend is raised."""

    one: Watched

    def __call__(self) -> Reading | ApiError:
        replica = self.one.replica
        try:
            if self.one.model is None:
                models = replica.models()
                name, revision = model_and_revision([model["id"] for model in models])
                self.one.model = Model(name, revision, next((m["root"] for m in models if m["id"] == name), ""))
            return canary_reading.read(replica)
        except ApiError as problem:
            if problem.status and problem.status < 500:
                raise
            return problem


def side(label: str, replicas: Iterable[Watched], since: str = "base") -> Side:
    """What those replicas did together since that reading; lost ones are left out."""
    there = [one for one in replicas if not one.lost and one.last is not None and getattr(one, since) is not None]
    counts = total(one.last.counts.since(getattr(one, since).counts) for one in there if one.last is not None)
    models = {one.model for one in there}
    model = next(iter(models)) if len(models) == 1 else None
    running = sum(one.last.running for one in there if one.last is not None)
    return Side(label, counts, model, tuple(one.id for one in there), running)
