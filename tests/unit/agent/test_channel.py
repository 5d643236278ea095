"""Exchanges with replicas that answer well, strangely, slowly and never, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import channel
from ansible_collections.llmops.vllm.plugins.module_utils._agent.channel import Channel, Connect

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
LIMIT = 0.5


class Server:
    """Answers each request of each connection with the given bytes; ``then`` says what follows them."""

    def __init__(self, *pieces: bytes, then: str = "keep") -> None:
        self.pieces, self.then, self.connections, self.requests = pieces, then, 0, 0
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Server:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_unused: object) -> None:
        for writer in self.writers:
            writer.close()
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.005)
                while self.then == "endless":
                    writer.write(b"x" * 65536)
                    await writer.drain()
                if self.then == "close":
                    writer.close()
                    return
                if self.then == "reset":
                    writer.transport.abort()
                    return


async def exchange(link: Channel, limit: float = LIMIT) -> tuple[str, int, bytes]:
    told: asyncio.Future[tuple[str, int, bytes]] = asyncio.get_running_loop().create_future()
    link.send(REQUEST, limit, lambda *words: told.set_result(words))
    return await asyncio.wait_for(told, limit + 1)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "then", "expected"),
    [
        ((OK,), "keep", ("ok", 200, b"hello")),
        ((OK[:10], OK[10:40], OK[40:]), "keep", ("ok", 200, b"hello")),
        ((b"HTTP/1.1 503 Busy\r\ncontent-length:0\r\n\r\n",), "keep", ("ok", 503, b"")),
        ((CHUNKED, b"3\r\nhel\r\n2;x=y\r\nlo\r\n", b"0\r\n\r\n"), "keep", ("ok", 200, b"hello")),
        ((CHUNKED + b"7\r\n0\r\n\r\nxy\r\n", b"0\r\n\r\n"), "keep", ("ok", 200, b"0\r\n\r\nxy")),
        ((b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo"), "close", ("ok", 200, b"hello")),
        ((OK[:-2],), "close", ("broken", 200, b"")),
        ((CHUNKED, b"ff\r\nhel"), "close", ("broken", 200, b"")),
        ((CHUNKED, b"zz\r\nhel\r\n0\r\n\r\n"), "keep", ("timeout", 200, b"")),
        ((), "reset", ("broken", 0, b"")),
        ((), "keep", ("timeout", 0, b"")),
        ((b"SSH-2.0-x\r\n\r\n",), "keep", ("garbage", 0, b"")),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,), "keep", ("garbage", 0, b"")),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n",), "keep", ("garbage", 0, b"")),
    ],
)
def test_every_answer_ends_with_a_word_in_time(pieces, then, expected):
    async def run() -> None:
        async with Server(*pieces, then=then) as server:
            link = Channel("127.0.0.1", server.port, keep=True)
            assert await exchange(link) == expected
            assert not link.busy
            link.close()

    asyncio.run(run())


def test_an_endless_body_is_cut_at_its_limit():
    async def run() -> None:
        async with Server(b"HTTP/1.1 200 OK\r\n\r\n", then="endless") as server:
            link = Channel("127.0.0.1", server.port, keep=True)
            assert (await exchange(link, 5))[0] == "garbage"
            link.close()

    asyncio.run(run())


def test_connection_is_kept_and_renewed_and_its_end_is_told():
    async def run() -> None:
        lost = asyncio.Event()
        async with Server(OK) as server:
            link = Channel("127.0.0.1", server.port, keep=True, on_lost=lost.set)
            for _turn in range(3):
                assert (await exchange(link))[0] == "ok"
            assert (server.connections, server.requests) == (1, 3)
            server.writers[0].transport.abort()
            await asyncio.wait_for(lost.wait(), 1)
            assert (await exchange(link))[0] == "ok"
            assert server.connections == 2
            link.close()

    asyncio.run(run())


def test_a_channel_that_keeps_nothing_opens_one_connection_each():
    async def run() -> None:
        async with Server(OK) as server:
            link = Channel("127.0.0.1", server.port, keep=False)
            for _turn in range(2):
                assert (await exchange(link))[0] == "ok"
            assert server.connections == 2

    asyncio.run(run())


def test_after_a_time_out_the_late_answer_is_not_taken_for_the_next_one():
    async def run() -> None:
        async with Server(then="keep") as server:
            link = Channel("127.0.0.1", server.port, keep=True)
            assert (await exchange(link, 0.1))[0] == "timeout"
            server.pieces = (OK.replace(b"hello", b"later"),)
            with contextlib.suppress(OSError):
                server.writers[0].write(OK)
            assert await exchange(link) == ("ok", 200, b"later")
            link.close()

    asyncio.run(run())


async def connect(address: str, port: int, limit: float = LIMIT) -> str:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    Connect(address, port, limit, told.set_result)
    return await asyncio.wait_for(told, limit + 1)


def test_connects_are_told_apart():
    async def run() -> None:
        async with Server() as server:
            assert await connect("127.0.0.1", server.port) == "ok"
            port = server.port
        await asyncio.sleep(0)
        assert await connect("127.0.0.1", port) == "refused"
        link = Channel("127.0.0.1", port, keep=True)
        assert (await exchange(link))[0] == "refused"

    asyncio.run(run())


def test_a_connect_without_an_answer_ends_in_time():
    async def run() -> None:
        # a full backlog: the kernel answers no further SYN, as a host that is gone
        with socket.socket() as full, contextlib.ExitStack() as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _turn in range(4):
                other = waiting.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(full.getsockname())
            began = time.monotonic()
            assert await connect("127.0.0.1", full.getsockname()[1], 0.3) == "timeout"
            assert time.monotonic() - began < 1

    asyncio.run(run())


def test_an_address_that_cannot_be_is_no_exception():
    async def run() -> None:
        assert await connect("not-an-address", 80) == "broken"
        assert (await exchange(Channel("127.0.0.1", 0, keep=True)))[0] in ("broken", "refused")

    asyncio.run(run())


def test_limits_leave_room_for_a_real_text():
    assert channel.MAX_BODY > 20 * 300_000
