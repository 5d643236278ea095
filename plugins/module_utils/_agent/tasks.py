# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of asyncio's tasks, which one cancellation does not ensure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.05


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel these tasks until every one has ended; what they raised is not raised here.

    Before Python 3.12 ``asyncio.wait_for`` returns its result when that and a cancellation come in the same moment
    (python/cpython#86296): the cancellation is lost, and a loop around it goes on for ever.
    """
    ending = list(tasks)
    while any(not task.done() for task in ending):
        for task in ending:
            task.cancel()
        await asyncio.wait(ending, timeout=AGAIN_SECONDS)
    await asyncio.gather(*ending, return_exceptions=True)
