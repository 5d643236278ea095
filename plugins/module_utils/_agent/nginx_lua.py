# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NGINX with its lua module: takes a view over a unix socket within milliseconds, and counts what is in flight."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, View

SECONDS = 2.0  # that an answer may take; NGINX answers in a millisecond unless the host is starved
MAX_ANSWER = 8 * 1024 * 1024


class NginxLua:
    """The engine behind ``lb.lua``."""

    def __init__(self, socket: str, seconds: float = SECONDS) -> None:
        self._socket, self._seconds = socket, seconds

    async def apply(self, view: View, urgent: bool) -> None:
        """Send the view and see it confirmed; nothing is ever put off, since a change costs nothing."""
        told = await self._ask("PUT", view.text().encode())
        if told.get("view") != view.id:
            raise EngineError(f"{self._socket}: NGINX runs view {told.get('view')!r} after it was sent {view.id}")

    async def look(self) -> Sight:
        """Ask for the view in force and the counts."""
        try:
            told = await self._ask("GET")
            peers = {str(peer["id"]): peer for peer in told["peers"]}
            return Sight(
                alive=True,
                view=str(told["view"]),
                inflight={ident: int(peer["inflight"]) for ident, peer in peers.items()},
                observed={
                    ident: Observed(int(peer["good"]), int(peer["failed"]), int(peer["failed_in_row"]))
                    for ident, peer in peers.items()
                },
            )
        except (EngineError, KeyError, TypeError, ValueError) as problem:
            return Sight(alive=False, reason=str(problem) or type(problem).__name__)

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _ask(self, method: str, body: bytes = b"") -> dict[str, Any]:
        where = f"{method} /lb at {self._socket}"
        try:
            status, data = await asyncio.wait_for(self._exchange(method, body), self._seconds)
        except asyncio.TimeoutError:
            raise EngineError(f"{where}: no answer within {self._seconds:g} s: systemctl status nginx") from None
        except (OSError, ValueError, asyncio.IncompleteReadError) as problem:
            raise EngineError(f"{where}: {problem}: systemctl status nginx") from None
        try:
            told = json.loads(data)
        except ValueError:
            told = None
        if status != 200 or not isinstance(told, dict):
            raise EngineError(f"{where}: answered {status}: {data[:200].decode('utf-8', 'replace')}")
        return told

    async def _exchange(self, method: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            head = f"{method} /lb HTTP/1.0\r\nHost: nginx\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            data = bytearray()
            while piece := await reader.read(65536):  # HTTP/1.0: the answer ends with the connection
                data += piece
                if len(data) > MAX_ANSWER:
                    raise ValueError(f"the answer is larger than {MAX_ANSWER} bytes")
        finally:
            writer.transport.abort()
        first, _sep, rest = bytes(data).partition(b"\r\n")
        words = first.split(b" ")
        if len(words) < 2 or not words[1].isdigit():
            raise ValueError(f"the answer is no HTTP: {first[:60]!r}")
        return int(words[1]), rest.partition(b"\r\n\r\n")[2]
