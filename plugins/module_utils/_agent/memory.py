# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a replica hold memory that no request needs? Both signs make it degraded, never out."""

from __future__ import annotations

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Scrape

_KV_HELD = 0.5  # share of the KV cache that nobody should hold while nothing runs
_KV_SCRAPES = 3
_FACTOR, _BYTES, _WARM_UP_SECONDS = 1.5, 1 << 30, 60.0


class Memory:
    """KV cache that is held while nothing runs, and a process that grows."""

    def __init__(self, now: float) -> None:
        self.complaint = ""  # one clause for people, "" when all is well
        self._born = now
        self._least: int | None = None
        self._held = 0

    def read(self, scrape: Scrape, now: float) -> None:
        """Take a reading of /metrics that ended now."""
        idle = scrape.running + scrape.waiting == 0
        self._held = self._held + 1 if idle and scrape.kv_usage > _KV_HELD else 0
        size, least = scrape.resident_bytes, self._least
        if size is not None and now - self._born >= _WARM_UP_SECONDS:
            least = self._least = min(size, least or size)
        if self._held >= _KV_SCRAPES:
            self.complaint = f"{scrape.kv_usage:.0%} of the KV cache is held by nobody"
        elif size and least and size > least * _FACTOR and size - least > _BYTES:
            self.complaint = f"process memory grew from {least >> 20} to {size >> 20} MiB"
        else:
            self.complaint = ""
