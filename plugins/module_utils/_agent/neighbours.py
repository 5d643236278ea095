# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other balancers' agents: asked in turn, so that a decision made at one holds at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.config import Neighbour
from ansible_collections.llmops.vllm.plugins.module_utils._agent.log import Log
from ansible_collections.llmops.vllm.plugins.module_utils._agent.peer import ask
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

ASK_SECONDS = 5.0
FIRST_SECONDS = 1.0  # between the first questions: until they are answered the address may not come here
FIRST_TRIES = 3  # without an answer before a peer counts as gone


@dataclass
class Seen:
    """What is known of one peer. ``heard`` is a second of the monotonic clock."""

    heard: float | None = None
    tries: int = 0
    reachable: bool = False
    payload: Mapping[str, Any] = field(default_factory=dict)


class Neighbours:
    """Asks the peers and keeps what they said last."""

    def __init__(self, peers: Sequence[Neighbour], keys: Sequence[str], log: Log) -> None:
        self._peers, self._keys, self._log = peers, keys, log
        self.seen = {peer.name: Seen() for peer in peers}

    @property
    def synced(self) -> bool:
        """Whether every peer has answered, or has not for long enough to count as gone."""
        return all(seen.heard is not None or seen.tries >= FIRST_TRIES for seen in self.seen.values())

    def first(self, own: str) -> bool:
        """Tell whether this is the first balancer by name among those that can be reached: the one that decides."""
        return all(own < name for name, seen in self.seen.items() if seen.reachable)

    @property
    def leased(self) -> set[str]:
        """Pools that are leased somewhere."""
        return {str(pool) for seen in self._reachable() for pool in _mapping(seen.payload.get("leases"))}

    @property
    def permits(self) -> list[Any]:
        """Permits that the peers told last."""
        found = [seen.payload.get("permits") for seen in self._reachable()]
        return [permit for permits in found if isinstance(permits, list) for permit in permits]

    def _reachable(self) -> list[Seen]:
        return [seen for seen in self.seen.values() if seen.reachable]

    async def run(self, merge: Callable[[str, Any], None]) -> None:
        """Ask every peer, for ever; ``merge`` gets the name and the administrative states of each that answers."""
        await asyncio.gather(*(self._follow(peer, merge) for peer in self._peers))
        await asyncio.Event().wait()

    async def _follow(self, peer: Neighbour, merge: Callable[[str, Any], None]) -> None:
        seen = self.seen[peer.name]
        while True:
            try:
                payload = await ask(peer.address, peer.port, self._keys, peer.name)
                merge(peer.name, payload["admin"])
                seen.payload, seen.heard, seen.reachable = payload, time.monotonic(), True
                self._log.state(f"peer {peer.name}", "")
            except (LlmopsError, KeyError, TypeError, AttributeError) as problem:
                seen.reachable = False
                self._log.state(f"peer {peer.name}", str(problem) or type(problem).__name__)
            seen.tries += 1
            await asyncio.sleep(FIRST_SECONDS if seen.heard is None and seen.tries < FIRST_TRIES else ASK_SECONDS)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each peer, for ``status``."""
        now = time.monotonic()
        return [
            {
                "name": name,
                "reachable": seen.reachable,
                "seconds_ago": None if seen.heard is None else round(now - seen.heard, 1),
                "generation": seen.payload.get("generation"),
            }
            for name, seen in self.seen.items()
        ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
