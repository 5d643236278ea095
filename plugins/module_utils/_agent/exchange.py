# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange with this host's NGINX or another agent, which are trusted to be slow, dead or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

LARGEST = 8 << 20  # bytes of an answer
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Way = Callable[[], Awaitable[Streams]]


def over_socket(path: str) -> Way:
    """Return what connects to a unix socket."""
    return lambda: asyncio.open_unix_connection(path)


def over_tcp(address: str, port: int) -> Way:
    """Return what connects to a port."""
    return lambda: asyncio.open_connection(address, port)


async def exchange(way: Way, method: str, path: str, body: str = "", seconds: float = 2) -> tuple[int, bytes]:
    """Return the status and the body of an answer; OSError when there is none of HTTP in time."""
    try:
        return await asyncio.wait_for(_exchange(way, method, path, body.encode()), seconds)
    except asyncio.TimeoutError:
        raise OSError(f"no answer within {seconds:g} s") from None


async def exchange_json(
    way: Way, method: str, path: str, body: str = "", seconds: float = 2
) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON object of an answer; OSError when there is none in time, or no such object."""
    status, text = await exchange(way, method, path, body, seconds)
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise OSError(f"status {status} without a JSON object")
    return status, found


async def _exchange(way: Way, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    reader, writer = await way()
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
    if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        raise OSError(f"the answer is not HTTP: {answer[:40]!r}")
    return int(words[1]), text


async def _read(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while more := await reader.read(65536):
        answer += more
        if len(answer) > LARGEST:
            raise OSError(f"the answer is larger than {LARGEST} bytes")
    return bytes(answer)
