# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of the agent end, whatever becomes of a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

from ansible_collections.llmops.vllm.plugins.module_utils._agent import tasks


def test_a_task_that_loses_cancellations_ends():
    lost = 0

    async def loses_two():
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    async def run():
        task = asyncio.ensure_future(loses_two())
        await asyncio.sleep(0)
        await asyncio.wait_for(tasks.end([task]), 5)
        return task

    assert asyncio.run(run()).cancelled()
    assert lost == 2


def test_what_a_task_raised_stays_with_it():
    async def fails():
        raise ValueError("its own")

    async def run():
        task = asyncio.ensure_future(fails())
        await asyncio.sleep(0)
        await tasks.end([task])
        return task

    with contextlib.suppress(ValueError):
        asyncio.run(run()).result()
        raise AssertionError("the task tells what it raised")


def test_no_task_is_no_wait():
    asyncio.run(tasks.end([]))
