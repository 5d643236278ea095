"""``python -m tests.load.hostile --url https://lb1 slow_headers idle``: clients that a balancer must survive.

Bounded in count and in time: all of them leave after ``--seconds``. Exit status 0 says that they did what they were to
do, not that anybody suffered: whether others were served meanwhile is for the strict client to say.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

CONNECT_SECONDS = 10
SLOW_SECONDS = 1  # between two bytes of those who are slow
MANY_HEADERS, HEADER_BYTES = 200, 8000
BODY_BYTES = 100000
READ_BYTES = 16  # what a slow reader takes at a time
RECEIVE_BUFFER = 4096

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Target:
    """A balancer, and what is needed to be let in."""

    url: str
    key: str = "none"
    model: str = "none"
    context: ssl.SSLContext | None = None
    host: str = field(init=False)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme != "https":
            self.context = None

    async def open(self) -> Streams:
        """Connect; OSError when nobody lets us in."""
        # not wait_for: until Python 3.12 it can swallow the end of a client that connects again and again
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(self.host, self.port, ssl=self.context, limit=RECEIVE_BUFFER)

    async def open_plain(self) -> Streams:
        """Connect, and leave TLS to the caller."""
        return await replace(self, context=None).open()

    def head(self, length: int) -> bytes:
        """The head of a chat completion, without the empty line that ends it."""
        lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {self.host}", f"Authorization: Bearer {self.key}"]
        lines += ["Content-Type: application/json", f"Content-Length: {length}", ""]
        return "\r\n".join(lines).encode()

    def long_stream(self) -> bytes:
        """A request for a stream that takes long."""
        message = {"role": "user", "content": "word"}
        body: dict[str, object] = {"model": self.model, "messages": [message], "max_tokens": 900}
        content = json.dumps({**body, "ignore_eos": True, "stream": True}).encode()
        return self.head(len(content)) + b"\r\n" + content


async def _until_closed(reader: asyncio.StreamReader) -> str:
    """What the other side made of it: the status that it answered, or how it ended."""
    line = await reader.readline()
    if not line:
        return "closed"
    status = line.decode("latin-1").split()[1:2]
    while await reader.read(1 << 16):
        pass
    return status[0] if status else "closed"


async def _drip(writer: asyncio.StreamWriter, content: bytes) -> None:
    for byte in content:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(SLOW_SECONDS)


async def _either(sending: Awaitable[None], reader: asyncio.StreamReader) -> str:
    """Send, slowly, until the other side has enough."""
    task = asyncio.ensure_future(sending)
    try:
        return await _until_closed(reader)
    finally:
        task.cancel()


async def slow_headers(target: Target) -> str:
    """A byte of the head a second."""
    reader, writer = await target.open()
    return await _either(_drip(writer, target.head(10) + b"\r\n"), reader)


async def slow_body(target: Target) -> str:
    """A whole head, then a byte of the body a second."""
    reader, writer = await target.open()
    writer.write(target.head(BODY_BYTES) + b"\r\n")
    return await _either(_drip(writer, b" " * BODY_BYTES), reader)


async def slow_reader(target: Target) -> str:
    """A long stream, read so slowly that all buffers fill."""
    reader, writer = await target.open()
    writer.write(target.long_stream())
    while await reader.read(READ_BYTES):
        await asyncio.sleep(SLOW_SECONDS)
    return "closed"


async def idle(target: Target) -> str:
    """Connects and says nothing, not even the begin of TLS."""
    reader, _writer = await target.open_plain()
    return await _until_closed(reader)


async def big_headers(target: Target) -> str:
    """A head of 1.6 MB."""
    reader, writer = await target.open()
    rows = b"".join(b"X-%d: %b\r\n" % (number, b"h" * HEADER_BYTES) for number in range(MANY_HEADERS))
    with contextlib.suppress(ConnectionError):
        writer.write(target.head(0) + rows + b"\r\n")
    return await _until_closed(reader)


async def wrong_tls(target: Target) -> str:
    """Bytes that look like the begin of TLS, and are none."""
    reader, writer = await target.open_plain()
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500))
    return await _until_closed(reader)


async def bad_chunks(target: Target) -> str:
    """A body in chunks of no valid size."""
    reader, writer = await target.open()
    head = target.head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    writer.write(head + b"\r\nzz\r\n{}\r\n-1\r\n\r\n")
    return await _until_closed(reader)


async def half_open(target: Target) -> str:
    """Asks for a long stream, closes its own direction, and never reads."""
    reader, writer = await target.open()
    writer.write(target.long_stream())
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    return await _until_closed(reader)


async def aborts(target: Target) -> str:
    """Asks for a long stream and leaves at its first byte, again and again."""
    while True:
        reader, writer = await target.open()
        writer.write(target.long_stream())
        await reader.read(READ_BYTES)
        writer.transport.abort()


KINDS: dict[str, Callable[[Target], Awaitable[str]]] = {
    function.__name__: function
    for function in (slow_headers, slow_body, slow_reader, idle, big_headers, wrong_tls, bad_chunks, half_open, aborts)
}


async def run(target: Target, kinds: list[str], count: int, seconds: float) -> dict[str, dict[str, int]]:
    """Send ``count`` clients of each kind at once; who is refused comes back. Return how often what happened."""
    told: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    until = time.monotonic() + seconds

    async def one(kind: str) -> None:
        while (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    end = await KINDS[kind](target)
            except TimeoutError:
                end = "still there"
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                end = type(error).__name__
            told[kind][end] += 1
            await asyncio.sleep(min(SLOW_SECONDS, max(0, until - time.monotonic())))

    await asyncio.gather(*(one(kind) for kind in kinds for _turn in range(count)))
    return {kind: dict(counts) for kind, counts in told.items()}


def main() -> int:
    """Run the clients and print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.hostile", description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=[*KINDS, "all"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--key-file")
    parser.add_argument("--ca")
    parser.add_argument("--model", default="none")
    parser.add_argument("--count", type=int, default=20, help="clients of each kind")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--out", help="write the result as JSON")
    arguments = parser.parse_args()
    key = pathlib.Path(arguments.key_file).read_text().strip() if arguments.key_file else "none"
    target = Target(arguments.url, key, arguments.model, ssl.create_default_context(cafile=arguments.ca))
    kinds = list(KINDS) if "all" in arguments.kinds else arguments.kinds
    told = asyncio.run(run(target, kinds, arguments.count, arguments.seconds))
    for kind, counts in told.items():
        print(f"{kind:<14}" + ", ".join(f"{end}: {number}" for end, number in sorted(counts.items())))
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
