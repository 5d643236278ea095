# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From members, administrative states and verdicts to the view that the engine gets, and its way into force."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ansible_collections.llmops.vllm.plugins.module_utils._agent import files
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import Engine, EngineError
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import (
    Administrative,
    Member,
    Peer,
    PeerState,
    Verdict,
    View,
)
from ansible_collections.llmops.vllm.plugins.module_utils._agent.tasks import end

RETRY_SECONDS = 0.5  # between two attempts to bring a view into force


def view_of(
    members: Iterable[Member],
    administrative: Mapping[str, Administrative],
    verdicts: Mapping[str, Verdict],
    settings: View,
) -> View:
    """Return the view; ``settings`` gives all that does not depend on a replica."""
    peers = []
    for member in members:
        verdict = verdicts[member.id]
        state: PeerState = "up" if verdict.in_rotation else "down"
        if administrative.get(member.id) == "drained":
            state = "drain"
        since = round(verdict.since, 1) if state == "up" else 0
        peers.append(Peer(member.id, member.pool, member.address, member.port, state, verdict.weight, since))
    return View(tuple(peers), settings.slow_start, settings.retry_percent, settings.retry_burst)


def is_urgent(before: View, after: View) -> bool:
    """Whether a replica leaves rotation: that is never put off."""
    up = {peer.id for peer in before.peers if peer.state == "up"}
    return bool(up - {peer.id for peer in after.peers if peer.state == "up"})


def remembered(path: Path) -> View | None:
    """Return the view that was published last, None when there is none or it cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return View.parse(path.read_text(encoding="utf-8"))
    return None


class Rotation:
    """Brings the wanted view into force, the newest first, and tells who waits when the engine has confirmed it."""

    def __init__(self, engine: Engine, path: Path, say: Callable[[str, str], None]) -> None:
        self._engine, self._path, self._say = engine, path, say
        last = remembered(path)
        self.wanted = last or View()
        self.confirmed = ""  # id of the view that the engine confirmed
        self._settled = asyncio.Condition()
        self._wake = asyncio.Event()
        self._asked = False
        self._urgent = False

    @property
    def in_force(self) -> bool:
        """Whether the engine runs what is wanted."""
        return self.confirmed == self.wanted.id

    def want(self, view: View) -> None:
        """Make this the wanted view."""
        if view == self.wanted and self._asked:
            return
        self._urgent = self._urgent or is_urgent(self.wanted, view)
        self._asked = True  # what a former run of the agent wanted is applied once more
        self.wanted = view
        self._wake.set()

    def lost(self) -> None:
        """Note that the engine runs another view, say because it was restarted."""
        if self.confirmed:
            self.confirmed = ""
            self._urgent = True
            self._wake.set()

    async def run(self) -> None:
        """Apply what is wanted, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            view, urgent, self._urgent = self.wanted, self._urgent, False
            # On disk first: an engine that starts in this moment reads it there.
            self._store(view)
            problem = await self._apply(view, urgent)
            self._say("engine", problem)
            if problem:
                self._urgent = self._urgent or urgent
                self._wake.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _apply(self, view: View, urgent: bool) -> str:
        """Apply one view; returns what went wrong. One that can wait gives way to a newer one that cannot."""
        applying = asyncio.ensure_future(self._engine.apply(view, urgent))
        try:
            while not applying.done():
                newer = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait({applying, newer}, return_when=asyncio.FIRST_COMPLETED)
                newer.cancel()
                if applying.done():
                    break
                if self._urgent and not urgent:
                    return ""
                await asyncio.wait({applying}, timeout=0.05)
        finally:
            await end([applying])
        try:
            applying.result()
        except EngineError as problem:
            return str(problem)
        async with self._settled:
            self.confirmed = view.id
            self._settled.notify_all()
        return ""

    def _store(self, view: View) -> None:
        try:
            files.write(self._path, view.text())
        except OSError as problem:
            self._say("view", f"{self._path} cannot be written: {problem.strerror}: make room; traffic is not touched")
        else:
            self._say("view", "")

    async def settled(self, limit: float) -> bool:
        """Wait until the engine runs what is wanted; False when it did not within ``limit`` seconds."""
        async with self._settled:
            try:
                await asyncio.wait_for(self._settled.wait_for(lambda: self.in_force), limit)
            except asyncio.TimeoutError:
                return False
        return True
