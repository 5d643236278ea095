# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The readings of /metrics of the last seconds, and what only several of them tell."""

from __future__ import annotations

from collections import deque

from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Scrape


class Window:
    """The last readings of one replica; all times are those of the judge's clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._readings: deque[tuple[float, Scrape]] = deque()  # with the times of their ends

    def keep(self, scrape: Scrape, now: float) -> bool:
        """Add a reading that ended now; True when it is the first one of a server that was started anew."""
        last = self._readings[-1][1] if self._readings else None
        anew = last is not None and (scrape.ttft_count < last.ttft_count or scrape.steps < last.steps)
        if anew:
            self.clear()
        self._readings.append((now, scrape))
        while len(self._readings) > 2 and now - self._readings[1][0] > self._limits.latency_window:
            self._readings.popleft()
        return anew

    def clear(self) -> None:
        """Forget what was: it says nothing of now."""
        self._readings.clear()

    def no_step_since(self, moment: float) -> bool:
        """Whether no step was made from that moment until the last reading."""
        before = [scrape.steps for at, scrape in self._readings if at <= moment]
        return bool(before) and before[-1] == self._readings[-1][1].steps

    def latency(self) -> float | None:
        """Mean seconds to the first token without the queue; None where too few requests came."""
        return self._mean(self._readings[0][1], self._limits.latency_samples) if self._readings else None

    def latest(self, seconds: float) -> float | None:
        """The same over the readings of the last seconds alone, where any request got its first token in them."""
        if not self._readings:
            return None
        since = self._readings[-1][0] - seconds
        return self._mean(next(scrape for at, scrape in self._readings if at >= since), 1)

    def _mean(self, first: Scrape, samples: int) -> float | None:
        last = self._readings[-1][1]
        count, queued = last.ttft_count - first.ttft_count, last.queue_count - first.queue_count
        if count < samples:
            return None
        queue = (last.queue_sum - first.queue_sum) / queued if queued > 0 else 0.0
        return max(0.0, (last.ttft_sum - first.ttft_sum) / count - max(0.0, queue))
