# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge's clock, which also notices when the agent itself did not run: that is no fault of any replica."""

from __future__ import annotations

from collections.abc import Callable


class WakefulClock:
    """A clock that is asked in every beat. Where nobody asked for longer than ``gap`` seconds, the agent was asleep.

    It was stopped, its machine was paused, or it got no share of the processor: answers lay unread in its sockets.
    """

    def __init__(self, clock: Callable[[], float], gap: float) -> None:
        self._clock, self._gap = clock, gap
        self._last = clock()
        self.woke = self._last  # end of the last sleep

    def __call__(self) -> float:
        """Seconds now."""
        now = self._clock()
        if now - self._last > self._gap:
            self.woke = now
        self._last = now
        return now

    def slept_since(self, moment: float) -> bool:
        """Whether the agent was asleep in any part of the time from that moment until now."""
        return moment < self.woke
