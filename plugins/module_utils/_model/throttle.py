# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit of bytes a second that several threads share."""

from __future__ import annotations

import threading
import time

CHUNK = 1 << 20


class Throttle:
    """Lets bytes pass at a rate; a rate of 0 is no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    @property
    def chunk(self) -> int:
        """How much to read at a time, so that the bytes flow and do not come by fits and starts."""
        return min(CHUNK, max(4096, self._rate // 10)) if self._rate else CHUNK

    def take(self, count: int) -> None:
        """Wait until so many bytes may pass."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        time.sleep(begin - now)
