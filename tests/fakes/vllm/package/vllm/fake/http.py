"""FAKE vLLM: HTTP/1.1 as far as a server for load balancers needs it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

_WORDS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}
_WORDS |= {500: "Internal Server Error", 503: "Service Unavailable"}
_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
_BROKEN = (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError)


class BadRequest(Exception):
    """What came is no request."""


@dataclass
class Request:
    """One request, its body read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: str

    @property
    def keep(self) -> bool:
        """Whether the connection stays open after the answer."""
        return self.headers.get("connection", "").lower() != "close"

    def document(self) -> dict[str, Any]:
        """The body, which must be a JSON object; ValueError otherwise."""
        found = json.loads(self.body or b"{}")
        if not isinstance(found, dict):
            raise ValueError(f"Input should be a valid dictionary, got {type(found).__name__}")
        return found


async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float | None) -> Request | None:
    """Read the next request of a connection, or None when it ended or stayed idle too long."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _unused = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _sep, value in (x.partition(":") for x in lines if x)}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, headers)
    except _BROKEN:
        return None
    except ValueError as error:
        raise BadRequest(str(error)) from error
    peer = writer.get_extra_info("peername") or ("",)
    return Request(method, target.partition("?")[0], headers, body, peer[0])


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length") or 0))
    pieces = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass
    return b"".join(pieces)


def answer(status: int, document: Any, kind: str = "application/json") -> bytes:
    """Return a whole answer."""
    body = document.encode() if isinstance(document, str) else compact(document).encode()
    head = [f"HTTP/1.1 {status} {_WORDS[status]}", "server: uvicorn", f"content-length: {len(body)}"]
    return "\r\n".join([*head, f"content-type: {kind}", "", ""]).encode() + body


def error_document(status: int, message: str) -> dict[str, Any]:
    """Return an error in the shape of vLLM's."""
    return {"error": {"message": message, "type": _TYPES.get(status, _WORDS[status]), "param": None, "code": status}}


def error(status: int, message: str) -> bytes:
    """Return an error as a whole answer."""
    return answer(status, error_document(status, message))


def compact(document: Any) -> str:
    """JSON without spaces, as vLLM writes it."""
    return json.dumps(document, separators=(",", ":"))


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
STREAM_HEAD += b"transfer-encoding: chunked\r\n\r\n"
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def event(document: Any) -> bytes:
    """Return a server-sent event as one chunk."""
    text = f"data: {document if isinstance(document, str) else compact(document)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)
