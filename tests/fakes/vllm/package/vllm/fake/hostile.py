"""FAKE vLLM: answers that no server should give, and that nothing in front of it may stumble over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
_CHUNKED = _HEAD + b"transfer-encoding: chunked\r\n\r\n"
_HEADERS, _HEADER_BYTES = 1024, 1024  # 1 MiB in all
_ENDLESS_BYTES, _ENDLESS_SECONDS = 1 << 16, 0.1  # as fast as a network would, not as fast as this machine's cores can
_SLOW_SECONDS, _SLOW_BYTES = 5, 1000


async def _huge_headers(writer: asyncio.StreamWriter) -> None:
    rows = b"".join(b"x-%d: %b\r\n" % (number, b"h" * (_HEADER_BYTES - 10)) for number in range(_HEADERS))
    writer.write(_HEAD + rows + b"content-length: 2\r\n\r\n{}")
    await writer.drain()


async def _endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(_CHUNKED)
    piece = b"%x\r\n%b\r\n" % (_ENDLESS_BYTES, b" " * _ENDLESS_BYTES)
    while not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(_ENDLESS_SECONDS)


async def _bad_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(_CHUNKED + b'5\r\n{"a":\r\nzz\r\n1}\r\n-1\r\n\r\n')
    await writer.drain()


async def _slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"content-length: %d\r\n\r\n" % _SLOW_BYTES)
    for _turn in range(_SLOW_BYTES):
        if writer.is_closing():
            return
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(_SLOW_SECONDS)


# Whatever is asked, ``/metrics`` and ``/health`` included; the connection is closed afterwards.
ANSWERS: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "huge_headers": _huge_headers,
    "endless_body": _endless_body,
    "bad_chunks": _bad_chunks,
    "slow_body": _slow_body,
}
