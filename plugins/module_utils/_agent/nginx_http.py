# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange with the NGINX of this host, which is trusted to be slow, dead or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

LARGEST = 4 << 20  # bytes of an answer
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def over_socket(path: str) -> Callable[[], Awaitable[_Streams]]:
    """Return what connects to a unix socket."""
    return lambda: asyncio.open_unix_connection(path)


def over_port(port: int) -> Callable[[], Awaitable[_Streams]]:
    """Return what connects to a port of 127.0.0.1."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


async def exchange(
    connect: Callable[[], Awaitable[_Streams]], method: str, path: str, body: str = "", seconds: float = 2
) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON object of an answer; OSError or ValueError when there is none in time."""
    try:
        return await asyncio.wait_for(_exchange(connect, method, path, body.encode()), seconds)
    except asyncio.TimeoutError:
        raise OSError(f"timed out after {seconds:g} s") from None


async def _exchange(
    connect: Callable[[], Awaitable[_Streams]], method: str, path: str, body: bytes
) -> tuple[int, dict[str, Any]]:
    reader, writer = await connect()
    try:
        # HTTP/1.0: no chunks, and the answer ends with its connection
        head = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await _read(reader)
    finally:
        writer.transport.abort()
    start, _gap, text = answer.partition(b"\r\n\r\n")
    words = start.split(b" ", 2)
    if not words[0].startswith(b"HTTP/") or len(words) < 2 or not words[1].isdigit():
        raise ValueError("the answer is not HTTP")
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"status {int(words[1])} without a JSON object")
    return int(words[1]), found


async def _read(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while True:
        more = await reader.read(65536)
        if not more:
            return bytes(answer)
        answer += more
        if len(answer) > LARGEST:
            raise ValueError(f"the answer is larger than {LARGEST} bytes")
