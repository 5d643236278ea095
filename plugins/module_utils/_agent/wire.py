# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The little HTTP that the agent speaks to people, peers and Prometheus: one request a connection, bounded in all."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import parse_qs, urlsplit

from ansible_collections.llmops.vllm.plugins.module_utils._agent.tasks import end

JSON = "application/json"


class BadRequest(Exception):
    """The peer sent no request that could be answered; the text says why."""


@dataclass(frozen=True)
class Request:
    """One request. Of a query that names a key twice the last value counts."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    body: bytes
    type: str = JSON

    def encode(self) -> bytes:
        """The bytes that go over the wire."""
        head = f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}\r\nContent-Type: {self.type}\r\n"
        head += f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        return head.encode("ascii") + self.body


def document(status: int, content: Any) -> Answer:
    """An answer that holds JSON."""
    return Answer(status, json.dumps(content, sort_keys=True).encode() + b"\n")


Handle = Callable[[Request], Awaitable[Answer]]


class Listener:
    """Serves connections within limits; whatever a connection does, it ends, and only itself."""

    def __init__(
        self, handle: Handle, *, connections: int, seconds: float, head: int = 8192, body: int = 0, answer: float = 0
    ) -> None:
        """``seconds`` bound reading a request and sending its answer, ``answer`` besides the making of it (0: none)."""
        self._handle = handle
        self._limit = connections
        self._seconds = seconds
        self._answer = answer
        self.head = head
        self._body = body
        self._open: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, as ``asyncio.start_server`` wants it."""
        task = asyncio.current_task()
        if task is None or len(self._open) >= self._limit:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(task)
            # not close(): it would wait for a client that does not read
            with contextlib.suppress(OSError):
                writer.transport.abort()

    async def close(self) -> None:
        """End what is open."""
        await end(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(read_request(reader, self.head, self._body), self._seconds)
        except BadRequest as problem:
            answer = document(400, {"error": {"message": str(problem)}})
        else:
            answer = await asyncio.wait_for(self._handle(request), self._answer or self._seconds)
        writer.write(answer.encode())
        await asyncio.wait_for(self._sent(writer), self._seconds)

    @staticmethod
    async def _sent(writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def read_request(reader: asyncio.StreamReader, head: int, body: int) -> Request:
    """Read one request of at most so many bytes; BadRequest when it is none, or larger."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    except (asyncio.LimitOverrunError, UnicodeDecodeError):
        raise BadRequest(f"the head of the request is larger than {head} bytes, or no text") from None
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("the first line is none of HTTP/1.1")
    fields = {name.strip().lower(): value.strip() for name, colon, value in (x.partition(":") for x in lines) if colon}
    if "transfer-encoding" in fields:
        raise BadRequest("a body in chunks is not read: send it with Content-Length")
    length = fields.get("content-length", "0")
    if not length.isdigit() or int(length) > body:
        raise BadRequest(f"Content-Length is {length[:20]}: at most {body} bytes are read")
    try:
        parts = urlsplit(words[1])
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    except ValueError as problem:
        raise BadRequest(f"the address of the request is none: {problem}") from None
    return Request(words[0], parts.path, query, await reader.readexactly(int(length)) if int(length) else b"")
