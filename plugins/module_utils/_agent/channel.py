# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange with a replica on the event loop, and a bare connect: as cheap as two hundred replicas need it.

Nothing that a replica sends can raise here or grow without bound: an exchange ends with one of the words ``ok``,
``refused``, ``timeout``, ``broken`` and ``garbage``, in the time that it was given.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Callable
from typing import Literal

Outcome = Literal["ok", "refused", "timeout", "broken", "garbage"]
OnEnd = Callable[[Outcome, int, bytes], None]  # outcome, HTTP status, body

MAX_HEAD = 64 * 1024
MAX_BODY = 8 * 1024 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,10})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


def family_of(address: str) -> socket.AddressFamily:
    """The family of a literal address; members hold no names, so nothing is ever looked up on the event loop."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Connect:
    """Opens a connection and closes it at once; ``on_end`` is called exactly once unless it was cancelled."""

    def __init__(self, address: str, port: int, limit: float, on_end: Callable[[Outcome], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end: Callable[[Outcome], None] | None = on_end
        self._timer: asyncio.TimerHandle | None = None
        family = family_of(address)
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            socket.inet_pton(family, address)  # a name would be looked up, and the loop stand still meanwhile
            code = self._socket.connect_ex((address, port))
        except OSError as problem:
            code = problem.errno or errno.EINVAL
        if code in (0, errno.EINPROGRESS):
            self._timer = self._loop.call_later(limit, self._end, "timeout")
            # by number: the event loop would make a text of a socket object each time, with three calls to the kernel
            self._loop.add_writer(self._socket.fileno(), self._connected)
        else:
            # never from within the constructor: who asks does not hold this object yet
            self._loop.call_soon(self._end, _word(code))

    def _connected(self) -> None:
        self._end(_word(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))

    def _end(self, outcome: Outcome) -> None:
        on_end = self._on_end
        self.cancel()
        if on_end is not None:
            on_end(outcome)

    def cancel(self) -> None:
        """Let go of the socket; nothing is called any more."""
        self._on_end = None
        if self._timer is not None:
            self._timer.cancel()
            self._loop.remove_writer(self._socket.fileno())
            self._timer = None
        self._socket.close()


def _word(code: int) -> Outcome:
    if code == 0:
        return "ok"
    if code == errno.ECONNREFUSED:
        return "refused"
    # the host is not there, or the way to it: the same as silence
    return "timeout" if code in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH) else "broken"


class Channel:
    """One request at a time to one replica, over a connection that is kept between requests if wanted."""

    def __init__(self, address: str, port: int, keep: bool, on_lost: Callable[[], None] | None = None) -> None:
        self.address, self.port, self._keep = address, port, keep
        self._on_lost = on_lost  # an idle connection was closed by the replica
        self._loop = asyncio.get_running_loop()
        self._link: _Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._on_end: OnEnd | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answer = _Answer()

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._on_end is not None

    def send(self, request: bytes, limit: float, on_end: OnEnd) -> None:
        """Send a whole request; ``on_end`` is called exactly once, after ``limit`` seconds at the latest."""
        self._answer, self._on_end = _Answer(), on_end
        self._timer = self._loop.call_later(limit, self._end, "timeout")
        if self._link is not None:
            self._link.transport.write(request)
        else:
            self._opening = self._loop.create_task(self._open(request))

    async def _open(self, request: bytes) -> None:
        try:
            transport, link = await self._loop.create_connection(lambda: _Link(self), self.address, self.port)
        except ConnectionRefusedError:
            self._end("refused")
        except OSError as problem:
            self._end(_word(problem.errno or errno.EINVAL))
        else:
            link.transport, self._link = transport, link
            transport.write(request)

    def received(self, link: _Link, data: bytes) -> None:
        """Take a piece of the answer; what nobody asked for ends the connection."""
        if link is not self._link:
            return
        if self._on_end is None:
            self._drop()
            return
        body = self._answer.take(data)
        if self._answer.bad:
            self._end("garbage")
        elif body is not None:
            if not self._keep or self._answer.last:
                self._drop()
            self._end("ok", body)

    def lost(self, link: _Link, clean: bool) -> None:
        """Take the end of a connection, which may be the end of the answer."""
        if link is not self._link:
            return  # one that was dropped before
        self._link = None
        if self._on_end is not None:
            body = self._answer.ended() if clean else None
            self._end("broken" if body is None else "ok", body or b"")
        elif self._on_lost is not None:
            self._on_lost()

    def _end(self, outcome: Outcome, body: bytes = b"") -> None:
        on_end, self._on_end = self._on_end, None
        status, self._answer = self._answer.status, _Answer()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._opening is not None and outcome == "timeout":
            self._opening.cancel()
        self._opening = None
        if outcome != "ok":
            self._drop()
        if on_end is not None:
            on_end(outcome, status, body)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.transport.abort()  # nothing of ours is worth waiting for, and a replica that hangs would keep it

    def close(self) -> None:
        """End everything without a word to anyone."""
        self._on_end = self._on_lost = None
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        self._drop()


class _Link(asyncio.Protocol):
    """One connection of a channel; late words of an old one are told apart by the object."""

    transport: asyncio.Transport

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self._channel.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._channel.lost(self, exc is None)


class _Answer:
    """What has come of an HTTP answer."""

    def __init__(self) -> None:
        self.status = 0
        self.bad = False  # it is no HTTP, or larger than any answer of a replica
        self.last = False  # the replica closes the connection after it
        self._data = bytearray()
        self._length, self._chunked, self._body_at = -1, False, 0

    def take(self, data: bytes) -> bytes | None:
        """Add a piece; return the body once it is whole."""
        self._data += data
        if not self.status and not self._read_head():
            return None
        start, size = self._body_at, len(self._data) - self._body_at
        if self._length >= 0:
            end = start + self._length
            return bytes(self._data[start:end]) if size >= self._length else None
        self.bad = size > MAX_BODY
        if self._chunked and self._data.endswith(b"0\r\n\r\n"):
            return _dechunk(bytes(self._data[start:]))
        return None

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end == -1:
            self.bad = len(self._data) > MAX_HEAD
            return False
        head = bytes(self._data[: end + 2])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or end > MAX_HEAD or (length and int(length.group(1)) > MAX_BODY):
            self.bad = True
            return False
        self.status, self._body_at = int(status.group(1)), end + 4
        self._chunked = _CHUNKED.search(head) is not None
        self._length = int(length.group(1)) if length and not self._chunked else -1
        self.last = _CLOSE.search(head) is not None
        return True

    def ended(self) -> bytes | None:
        """Return the body of an answer whose end is the end of the connection; None when it was cut off."""
        if self.status and self._length < 0 and not self._chunked:
            start = self._body_at
            return bytes(self._data[start:])
        return None


def _dechunk(data: bytes) -> bytes | None:
    """The body of a chunked text that is whole, None for one that is not (yet)."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        try:
            size = int(data[at:end].partition(b";")[0], 16) if end != -1 else -1
        except ValueError:
            return None
        start = end + 2
        end = start + size
        if size < 0 or end + 2 > len(data):
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[start:end])
        at = end + 2
