# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured of one replica, and what that means for this replica alone.

No rule here knows of other replicas: whether a bad one really leaves is the pool's decision (``judge``).
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal

from ansible_collections.llmops.vllm.plugins.module_utils._agent.intake import Intake
from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Due, Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.memory import Memory
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Administrative, Observed, Scrape
from ansible_collections.llmops.vllm.plugins.module_utils._agent.wakefulness import WakefulClock
from ansible_collections.llmops.vllm.plugins.module_utils._agent.window import Window

Kind = Literal["fact", "judgement"]
ConnectWord = Literal["ok", "refused", "timeout", "broken"]

_FAILURES_IN_ROW = 3  # that the engine saw, after which completions are asked for at once
_UNREADABLE_SCRAPES = 3  # in a row


@dataclass(frozen=True)
class Bad:
    """Why a replica should be out. ``wedged`` is set when it generates nothing although it should."""

    kind: Kind
    reason: str
    since: float
    wedged: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Question:
    """A completion without a token: a reading of /metrics that begins after its end decides what that means."""

    busy: bool  # answered 503; otherwise it timed out
    began: float
    ended: float


class ReplicaHealth:
    """The measurements of one replica and their meaning. Times are those of the judge's clock."""

    def __init__(self, ident: str, limits: Limits, clock: WakefulClock, in_rotation: bool) -> None:
        now = clock()
        self.id, self._limits, self._clock = ident, limits, clock
        self.administrative: Administrative = "active"
        self.bad: Bad | None = None if in_rotation else Bad("fact", "not yet probed", now)
        self.degraded = ""
        self.latency: float | None = None
        self.still_since: float | None = None  # work is there and no step is made, since then at the latest
        self.scrape: Scrape | None = None
        # phases: probes of many replicas are spread, those of one follow their interval
        phase = zlib.crc32(ident.encode()) % 1000 / 1000
        self._next_connect = now + phase * limits.connect_interval
        self._next_scrape = now + phase * limits.scrape_interval
        self._unproven_interval = limits.unproven_share * limits.completion_interval
        self._next_completion = now + (phase * self._unproven_interval if in_rotation else 0)
        self._first_time = not in_rotation
        self._good = 0
        self._ejections: deque[float] = deque()
        self._connect: ConnectWord | None = None
        self._connects_bad = 0
        self._reached = now  # last sign of life of any kind
        self._answered = now  # last answer of the program
        self._scraped_ok: bool | None = None
        self._scrape_ended = now
        self._completion: tuple[str, float, int] | None = None  # word, seconds, status
        self._completion_at = now
        self._completions_bad = 0
        self._question: Question | None = None
        self._full = ""  # how a completion that ended without a token showed that the replica is busy, not bad
        self._observed = Observed()
        self._window = Window(limits)
        self._slow = 0
        self._slow_at = now
        self._memory = Memory(now)
        self._intake = Intake(limits, now)
        self._unreadable = 0  # readings in a row that were no metrics of vLLM

    @property
    def kind(self) -> Kind | None:
        """How sure it is that the replica should be out; None when it should not."""
        return None if self.bad is None else self.bad.kind

    # --- when to probe

    def due(self) -> Due:
        """When the next probes start."""
        proven = max(self._intake.served_at, self._completion_at)
        completion: float | None = min(self._next_completion, proven + self._unproven_interval)
        if self.administrative == "drained" or self._connect in ("refused", "timeout", "broken"):
            completion = None  # nobody would answer, or nobody wants to know
        return Due(self._next_connect, self._next_scrape, completion)

    def hurry(self, now: float, connect: bool = False, scrape: bool = False, completion: bool = False) -> None:
        """Ask for probes at once."""
        if connect:
            self._next_connect = min(self._next_connect, now)
        if scrape:
            self._next_scrape = min(self._next_scrape, now)
        if completion:
            self._next_completion = min(self._next_completion, now)

    # --- what probes told

    def connected(self, word: ConnectWord, now: float) -> None:
        """A connect ended."""
        if word == "timeout" and self._clock.slept_since(now - self._limits.connect_timeout):
            self._next_connect = now
            return
        self._connect = word
        if word == "ok":
            self._connects_bad, self._reached = 0, now
            self._next_connect = now + self._limits.connect_interval
            return
        self._connects_bad += 1
        self._next_connect = now + (
            self._limits.connect_again if self._connects_bad == 1 else self._limits.connect_interval
        )
        if word == "refused":
            self._reached = now
        if self._connects_bad >= 2:
            if word == "refused":
                self._condemn("fact", "connections are refused", now)
            else:
                self._condemn("judgement", f"connects get no answer ({word})", now)

    def scraped(self, scrape: Scrape | None, word: str, began: float, now: float) -> None:
        """A reading of /metrics ended."""
        self._next_scrape = began + self._limits.scrape_interval
        if word == "timeout" and self._clock.slept_since(began):
            self._next_scrape = now
            return
        self._scraped_ok = scrape is not None
        self._unreadable = 0 if scrape is not None or word == "refused" else self._unreadable + 1
        if word in ("refused", "broken"):
            self.hurry(now, connect=True)
        if word in ("ok", "garbage"):
            self._reached = self._answered = now
            if self._connect == "ok":  # an answer proves as much as a connect, and both cost
                self._next_connect = max(self._next_connect, now + self._limits.connect_interval)
        if scrape is not None:
            self._progress(scrape, began, now)
            if self._window.keep(scrape, now):
                self._memory = Memory(now)
            self._memory.read(scrape, now)
            self._intake.read(scrape, now)
            self.scrape, self._scrape_ended = scrape, now
        elif word == "timeout" and self._answered < began:
            self._condemn("judgement", f"no answer for {now - began:.1f} s", now, wedged_at=began)
            self._next_scrape = now
        question = self._question
        if question is not None and began < question.ended:
            self.hurry(now, scrape=True)
        elif question is not None and word != "refused":
            self._question = None
            self._explain(question, scrape, began, now)

    def completed(self, word: str, seconds: float, status: int, began: float, now: float) -> None:
        """A completion ended."""
        slept = self._clock.slept_since(began)
        if word == "timeout" and slept:
            self._next_completion = self._completion_at = now
            return
        # how long one took in which the agent was asleep is not known
        self._completion = None if slept and word == "ok" else (word, round(seconds, 3), status)
        self._completion_at = now
        waiting = self.bad is not None or self._slow > 0
        self._next_completion = now + (self._limits.return_interval if waiting else self._limits.completion_interval)
        if word in ("refused", "broken"):
            self._good = 0
            self.hurry(now, connect=True)
        if word in ("ok", "busy", "error", "garbage"):
            self._reached = self._answered = now
        if word == "ok":
            self._completions_bad = 0
            self._question, self._full, self.still_since = None, "", None
            return
        if word in ("busy", "timeout"):
            self._question = Question(word == "busy", began, now)
            self.hurry(now, scrape=True, connect=word == "timeout")
            return
        self._good = 0
        if word in ("error", "garbage"):
            self._failed(f"completions get {f'HTTP {status}' if word == 'error' else 'nonsense'}", now)
        elif word == "broken":
            self._failed("completions break off", now)

    def good_round(self, limit: float, now: float) -> bool:
        """Count a completion that has just ended well towards the return; True when it is complete.

        ``limit``: seconds that a completion of a replica that was slow may take.
        """
        seconds = self._completion[1] if self._completion else limit
        if seconds > limit:
            self._good = 0
            return False
        return self._count_good(now)

    def _count_good(self, now: float) -> bool:
        if self._connect != "ok" or not self._scraped_ok:
            self._good = 0
            return False
        self._good += 1
        if self._good < self._rounds_needed(now):
            return False
        self.bad, self._first_time, self._good, self._slow, self.latency = None, False, 0, 0, None
        self._window.clear()
        self._next_completion = now + self._limits.completion_interval
        return True

    def _rounds_needed(self, now: float) -> int:
        if self._first_time:
            return 1
        while self._ejections and now - self._ejections[0] > self._limits.ejections_window:
            self._ejections.popleft()
        many = len(self._ejections) >= self._limits.ejections_many
        return self._limits.good_rounds * (2 if many else 1)

    def observed(self, seen: Observed, now: float) -> None:
        """The engine's counters were read."""
        before, self._observed = self._observed, seen
        if seen.failed > before.failed:
            self.hurry(now, completion=True, connect=seen.failed_in_row >= _FAILURES_IN_ROW)

    def tick(self, now: float) -> None:
        """Let time pass."""
        if self.bad is not None and self.kind == "judgement" and self._connects_bad >= 2:
            gone = now - max(self._reached, self._clock.woke)
            if gone >= self._limits.unreachable_is_fact:
                self.bad = replace(self.bad, kind="fact", reason=f"no sign of life for {gone:.0f} s")

    # --- rules

    def _condemn(self, kind: Kind, reason: str, now: float, wedged_at: float | None = None, slow: bool = False) -> None:
        """Say that the replica should be out; a fact outweighs a judgement, the first judgement stays."""
        self._good = 0
        if wedged_at is not None and self.still_since is None:
            self.still_since = wedged_at
        wedged = wedged_at is not None
        if self.bad is None:
            self._ejections.append(now)
            self.bad = Bad(kind, reason, now, wedged, slow)
            self._next_completion = min(self._next_completion, now + self._limits.return_interval)
        elif kind == "fact" and (self.bad.kind != "fact" or self._first_time):
            self.bad = Bad(kind, reason, self.bad.since, False)
        elif wedged and not self.bad.wedged and self.bad.kind == "judgement":
            self.bad = replace(self.bad, reason=reason, wedged=True)

    def _progress(self, scrape: Scrape, began: float, now: float) -> None:
        last = self.scrape
        if last is None or scrape.steps != last.steps:
            self.still_since = None
            return
        if scrape.running + scrape.waiting == 0 or last.running + last.waiting == 0:
            if self.bad is None or not self.bad.wedged:
                self.still_since = None  # nothing to do is no standstill
            return
        # The counter was read between begin and end: what is sure is from the end of the one to the begin of the other.
        if self.still_since is None:
            self.still_since = self._scrape_ended
        still = began - self.still_since
        self._next_scrape = began + self._limits.suspicion_scrape
        if still >= self._limits.silence:
            reason = f"wedged: no step for {still:.1f} s, {scrape.running} running, {scrape.waiting} waiting"
            self._condemn("judgement", reason, now, wedged_at=self.still_since)
        elif self.bad is None and now - self._completion_at > self._limits.return_interval:
            self.hurry(now, completion=True)

    def _explain(self, question: Question, scrape: Scrape | None, began: float, now: float) -> None:
        """Say what a completion without a token means, in the light of a reading that began after it."""
        limit = f"{self._limits.probe_timeout:g} s"
        late = f"completions take over {limit}"
        if scrape is None:  # without numbers nothing speaks for the replica
            self._failed("completions get HTTP 503" if question.busy else late, now)
        elif question.busy and scrape.running + scrape.waiting == 0:
            self._failed("completions get HTTP 503 though nothing runs", now)
        elif question.busy:
            self._busy("completions get HTTP 503", now)
        elif self._window.no_step_since(question.began):
            reason = f"wedged: a completion got no token in {limit}, and no step was made"
            self._condemn("judgement", reason, now, wedged_at=question.began)
        elif began - max(question.began, self._intake.untouched_since) >= self._limits.silence:
            reason = f"takes no new work: a completion got no token in {limit}, nor did anybody, and nobody waits"
            self._condemn("judgement", f"{reason}; {scrape.running} running", now)
        elif self._intake.waited_at >= question.began:
            self._busy(f"completions take over {limit}, and requests wait", now)
        else:
            self._failed(late, now)

    def _busy(self, words: str, now: float) -> None:
        """A replica that is full is not bad, and may even return: a standstill is noticed whether it is full or not."""
        self._completions_bad = 0
        self._full = f"busy: {words}"
        self._next_completion = min(self._next_completion, now + self._limits.return_interval)
        if self.bad is not None and self.bad.slow:
            self._good = 0
        elif self.bad is not None:
            self._count_good(now)

    def _failed(self, reason: str, now: float) -> None:
        self._good, self._full = 0, ""
        self._completions_bad += 1
        if self._completions_bad >= 2:
            self._condemn("judgement", reason, now)
        elif self.bad is None:
            self._next_completion = now + self._limits.suspicion_interval

    def assess(self, now: float) -> None:
        """Work out latency and what makes the replica degraded."""
        self.latency = self._latency(now)
        if self._full and self.administrative == "active":
            self.degraded = self._full
        elif self.latency is not None and self.latency > self._limits.latency_degraded:
            self.degraded = f"slow: {self.latency * 1000:.0f} ms to the first token"
        elif self._unreadable >= _UNREADABLE_SCRAPES:
            self.degraded = "metrics cannot be read"
        else:
            self.degraded = self._memory.complaint

    def _latency(self, now: float) -> float | None:
        """Seconds to the first token without the queue, over the window; of own completions where few others came."""
        latency = self._window.latency()
        if latency is not None:
            return latency
        fresh = now - self._completion_at <= 1.5 * self._limits.completion_interval
        idle = self.scrape is not None and self.scrape.waiting == 0
        if self._completion is not None and self._completion[0] == "ok" and fresh and idle:
            return self._completion[1]
        return None

    def slow_against(self, limit: float, now: float) -> None:
        """Compare the latency with what the pool allows; in the third evaluation in a row the replica should be out."""
        if now - self._slow_at < 1.0:
            return
        self._slow_at = now
        if self.bad is not None or self.latency is None or self.scrape is None:
            return
        # Who waited through one stall stays in the average for the whole window: it must go on to be slow.
        latest = self._window.latest(self._limits.latency_latest)
        if self.scrape.waiting > 0 or self.latency <= limit or (latest is not None and latest <= limit):
            self._slow = 0
            return
        self._slow += 1
        self.hurry(now + self._limits.return_interval, completion=True)
        if self._slow >= self._limits.latency_evaluations:
            self._slow = 0
            milliseconds = self.latency * 1000
            reason = f"slow: {milliseconds:.0f} ms to the first token, {limit * 1000:.0f} allowed by the others"
            self._condemn("judgement", reason, now, slow=True)

    def numbers(self, now: float) -> dict[str, Any]:
        """The last measurements, for people. Seconds since, bytes, requests."""
        scrape = self.scrape
        found: dict[str, Any] = {
            "connect": self._connect,
            "connects_failed_in_row": self._connects_bad,
            "last_sign_of_life_seconds_ago": round(now - self._reached, 1),
            "latency_ms": None if self.latency is None else round(self.latency * 1000),
            "no_step_for_seconds": None if self.still_since is None else round(now - self.still_since, 1),
            "good_rounds": self._good,
            "good_rounds_needed": self._rounds_needed(now),
            "engine_saw": {
                "good": self._observed.good,
                "failed": self._observed.failed,
                "failed_in_row": self._observed.failed_in_row,
            },
        }
        if self._completion is not None:
            word, seconds, status = self._completion
            found["completion"] = {"result": word, "seconds": seconds, "status": status}
            found["completion"]["seconds_ago"] = round(now - self._completion_at, 1)
        if scrape is not None:
            names = ("running", "waiting", "steps", "kv_usage", "resident_bytes")
            found["metrics"] = {name: getattr(scrape, name) for name in names}
            found["metrics"]["seconds_ago"] = round(now - self._scrape_ended, 1)
        return found
