"""FAKE vLLM: HTTP/1.1 as far as a server for load balancers needs it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

_WORDS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}
_WORDS |= {500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass
class Request:
    """One request, its body read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: str

    def json(self) -> Any:
        """The body as JSON; ValueError when it is none."""
        return json.loads(self.body or b"{}")


async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float) -> Request | None:
    """Read the next request of a connection, or None when it ended or stayed idle too long."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle)
    except (asyncio.TimeoutError, asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path.partition("?")[0], headers, body, writer.get_extra_info("peername")[0])


def answer(status: int, document: Any, kind: str = "application/json") -> bytes:
    """Return a whole answer."""
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    head = [f"HTTP/1.1 {status} {_WORDS[status]}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def error(status: int, message: str) -> bytes:
    """Return an error in the shape of vLLM's."""
    return answer(status, {"error": {"message": message, "type": _WORDS[status], "param": None, "code": status}})


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(document: Any) -> bytes:
    """Return a server-sent event as one chunk."""
    text = f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n".encode()
    return f"{len(text):x}\r\n".encode() + text + b"\r\n"


STREAM_END = b"0\r\n\r\n"
