# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops the systemd unit of a replica until nothing of it is left, or starts it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.llmops.vllm.plugins.module_utils import _systemd
from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_least
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError, Unfulfilled
from ansible_collections.llmops.vllm.plugins.module_utils._systemd import SystemdError, UnitState
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.leftovers import Leftovers, left_process

STOP_SLACK = 15.0  # beyond the time after which systemd itself kills what is left
_ONE_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*")
_FORESEEN = {"stopped": "inactive/dead", "started": "active/running"}
_LEAST = {"timeout": 0, "hard_after": 0, "leftover_timeout": 0, "return_after": 0, "interval": 0.01}


class UnitError(LlmopsError):
    """What is asked for cannot be meant."""


class Systemd(Protocol):
    """What is needed of systemd."""

    def show(self, unit: str) -> UnitState:
        """Ask about a unit."""

    def control(self, *words: str) -> None:
        """Run systemctl."""

    def journal_tail(self, unit: str) -> str:
        """Return the end of a unit's journal."""


@dataclass(frozen=True)
class Wish:
    """What the unit is to be, and for how many seconds that is waited for."""

    name: str
    state: str
    timeout: float = 0.0  # 0: as the unit itself says
    hard_after: float = 0.0  # 0: never
    leftover_timeout: float = 30.0
    return_after: float = 0.0  # of this call; 0 is no limit
    interval: float = 0.5

    def __post_init__(self) -> None:
        if not _ONE_UNIT.fullmatch(self.name):
            raise UnitError(f"name is {self.name!r}: give one unit, such as vllm@r0.service")
        check_least(self, UnitError, _LEAST)


@dataclass
class Outcome:
    """What was done and seen."""

    msg: str
    changed: bool
    done: bool
    before: str
    after: str
    seconds: float
    hard: bool = False
    restarts: int = 0
    notes: list[str] = field(default_factory=list)
    diff: dict[str, str] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {**vars(self), "seconds": round(self.seconds, 1)}


class NotDone(Unfulfilled[Outcome]):
    """The unit is not what it is to be and will not become it by itself; ``outcome`` says what was done and seen."""


class Change:
    """One change of one unit."""

    def __init__(
        self,
        wish: Wish,
        leftovers: Leftovers,
        *,
        systemd: Systemd = _systemd,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``clock`` is the one that systemd has, too: since when a unit is stopping goes from call to call."""
        self.wish, self.leftovers, self.systemd = wish, leftovers, systemd
        self._clock, self._sleep = clock, sleep
        self._called = clock()
        self._state = self._before = systemd.show(wish.name)
        self._changed = self._killed = False
        self._notes: list[str] = []
        began = self._called
        if self._before.active == "deactivating":
            # an earlier call, or somebody else, has begun
            began = max(self._before.active_until, self._before.inactive_until) or began
        self._began = began
        self._limit = wish.timeout or self._before.stop_seconds + STOP_SLACK

    def foresee(self) -> Outcome:
        """What would be done, for check mode, in which the unit may not be there yet."""
        stopped = self._before.stopped or not self._before.exists
        self._changed = not (stopped if self.wish.state == "stopped" else self._before.started)
        words = f"would be {self.wish.state}" if self._changed else "nothing would be done"
        outcome = self._outcome(f"{self._before.words()}: {words}", done=True)
        outcome.after = _FORESEEN[self.wish.state] if self._changed else outcome.before
        return outcome

    def bring_about(self) -> Outcome:
        """Stop or start it; NotDone says why it is not so."""
        if not self._before.exists:
            raise self._not_done("systemd does not know it: is the name right? The role vllm installs it")
        return self._stop() if self.wish.state == "stopped" else self._start()

    # --- stop

    def _stop(self) -> Outcome:
        stopped_since = self._before.inactive_since or self._called
        self.leftovers.remember(self._before)
        if not self._before.stopped:
            self._changed, stopped_since = True, 0.0
            self._control("stop", "--no-block")
        while True:
            self._state = self.systemd.show(self.wish.name)
            self.leftovers.remember(self._state)
            now = self._clock()
            if self._state.stopped:
                stopped_since = stopped_since or now
                left = self.leftovers.found()
                if not left:
                    return self._outcome(f"{self._state.words()}, and nothing of it is left", done=True)
                if now - stopped_since >= self.wish.leftover_timeout:
                    after = f"{now - stopped_since:.0f} s after it stopped"
                    raise self._not_done(f"not all of it is gone {after}: {'; '.join(left)}")
                words = "; ".join(left)
            else:
                self._judge_stop(now)
                words = "it has not stopped yet"
            if self._returns(now):
                return self._outcome(f"{self._state.words()}: {words}", done=False)

    def _judge_stop(self, now: float) -> None:
        """Kill what takes too long; raise when it will not stop."""
        took = now - self._began
        if self._state.started and not self._state.job:
            raise self._not_done("somebody has started it again (the watchdog, another run?): stop it again")
        if took >= self._limit:
            left = "; ".join(map(left_process, self.leftovers.alive())) or "none of its processes lives"
            raise self._not_done(f"not stopped after {took:.0f} s, and systemd goes on with it: {left}")
        if self.wish.hard_after and took >= self.wish.hard_after and not self._killed:
            try:
                self._control("kill", "--signal=SIGKILL")
                self._killed = True
            except SystemdError as problem:  # it may have ended this very moment; the next look tells
                self._notes = [str(problem)]

    # --- start

    def _start(self) -> Outcome:
        if self._before.started:
            return self._outcome(self._before.words(), done=True)
        self._changed = True
        # always: systemd itself notices newer files, and going back to an older release brings older ones
        self.systemd.control("daemon-reload")
        # starts that were counted before are not this one's; a unit that is not loaded has none
        with contextlib.suppress(SystemdError):
            self._control("reset-failed")
        # a start would wait with systemd for the end of its pause
        self._control("restart" if self._before.restarting else "start", "--no-block")
        while True:
            self._state = self.systemd.show(self.wish.name)
            now = self._clock()
            if self._state.started:
                return self._outcome(self._state.words(), done=True)
            if not self._state.job:
                journal = self.systemd.journal_tail(self.wish.name)
                raise self._not_done(f"it was started, and ended. Mend what the end of its journal tells:\n{journal}")
            if now - self._began >= self._limit:
                raise self._not_done(
                    f"not started after {now - self._began:.0f} s: systemctl list-jobs shows what waits"
                )
            if self._returns(now):
                return self._outcome(f"{self._state.words()}: its start waits", done=False)

    # --- what both need

    def _control(self, verb: str, *options: str) -> None:
        self.systemd.control(verb, *options, "--", self.wish.name)

    def _returns(self, now: float) -> bool:
        """Whether this call has lasted long enough; waits a little if not."""
        left = self._called + self.wish.return_after - now if self.wish.return_after else self.wish.interval
        if left > 0:
            self._sleep(min(self.wish.interval, left))
        return left <= 0

    def _outcome(self, msg: str, done: bool) -> Outcome:
        word = "started" if self._before.exists and not self._before.down else "stopped"
        return Outcome(
            msg=msg,
            changed=self._changed,
            done=done,
            before=self._before.state,
            after=self._state.state,
            seconds=self._clock() - self._called,
            hard=self._killed or (self._changed and self._state.killed),
            restarts=self._state.restarts,
            notes=[*self._notes, *self.leftovers.notes],
            diff={
                "before": f"{self.wish.name}: {word}\n",
                "after": f"{self.wish.name}: {self.wish.state if self._changed else word}\n",
            },
        )

    def _not_done(self, reason: str) -> NotDone:
        text = f"{self._state.words()}: {reason}"
        return NotDone(text, self._outcome(text, done=False))
