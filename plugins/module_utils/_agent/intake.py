# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a replica take up new work? What readings of /metrics tell of it; all times are those of the judge's clock."""

from __future__ import annotations

from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Scrape


class Intake:
    """First tokens and queues of one replica.

    An engine whose front lets nothing new in goes on with its old streams: its steps say nothing about new work.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        # Readings further apart say nothing of the time between: the API process may have stood still in it.
        self._apart = 2 * limits.scrape_interval
        self._last: Scrape | None = None
        self._last_at = now
        self.served_at = now  # somebody got a first token then, or later
        self.waited_at = float("-inf")  # a reading last showed that requests wait
        # Every reading since then showed an engine that works, or has no work, nobody who waits and no first token.
        self.untouched_since = now

    def read(self, scrape: Scrape, now: float) -> None:
        """Take a reading that ended now."""
        last, last_at = self._last, self._last_at
        self._last, self._last_at = scrape, now
        if scrape.waiting > 0:
            self.waited_at = now
        if last is None:
            self.untouched_since = now
            return
        if scrape.ttft_count > last.ttft_count:
            self.served_at = last_at
        works = scrape.steps > last.steps or scrape.running == 0
        untouched = works and scrape.waiting == 0 and scrape.ttft_count == last.ttft_count
        if not untouched or now - last_at > self._apart:
            self.untouched_since = now
