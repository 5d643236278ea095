"""The driver of the lua form: against a real NGINX, and against sockets that answer nonsense or never."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, Peer, View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_lua import NginxLua

from tests.fakes.vllm.running import await_that
from tests.unit.agent import nginx_lab

VIEW = View((Peer("gpu1/r0", "default", "127.0.0.1", 8000, "up"),))


@pytest.fixture
def socket() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="llm-") as folder:
        yield str(pathlib.Path(folder) / "admin.sock")


def against(socket: str, answer: bytes | None, action: Callable[[NginxLua], Awaitable[Any]]) -> Any:
    """Run an action of a driver whose socket sends these bytes, or keeps silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        if answer is not None:
            with contextlib.suppress(OSError):
                writer.write(answer)
                await writer.drain()
            writer.close()
        else:
            await reader.read()

    async def run() -> Any:
        server = await asyncio.start_unix_server(serve, socket)
        try:
            return await action(NginxLua(socket, seconds=0.3))
        finally:
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "no answer within 0.3 s"),
        (b"", "the answer is not HTTP"),
        (b"\xff\x00garbage\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n{}", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "status 200 without a JSON object"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "status 200 without a JSON object"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100000, "status 200 without a JSON object"),
        (b"HTTP/1.1 502 Bad\r\n\r\n<html>", "status 502 without a JSON object"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 9000000, "larger than"),
        (b'HTTP/1.1 400 Bad\r\n\r\n{"error": "peer 1 has no valid port"}', "status 400"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"view": "other", "peers": 7, "gone": []}', ""),
    ],
)
def test_a_strange_answer_is_an_engine_that_is_not_alive(socket: str, answer: bytes | None, reason: str) -> None:
    sight = against(socket, answer, lambda engine: engine.look())
    assert not sight.alive
    assert reason in sight.reason
    with pytest.raises(EngineError, match=reason or "has view 'other' in force"):
        against(socket, answer, lambda engine: engine.apply(VIEW, True))


def test_no_socket_is_an_engine_that_is_not_alive(socket: str) -> None:
    assert "No such file" in asyncio.run(NginxLua(socket).look()).reason
    with pytest.raises(EngineError, match="is nginx.service running"):
        asyncio.run(NginxLua(socket).apply(VIEW, False))


@nginx_lab.needs_nginx
@nginx_lab.needs_lua
def test_the_real_nginx_takes_a_view_and_tells_what_it_does() -> None:
    with nginx_lab.lab("lua") as lab:
        replica = lab.replicas.start("a")
        lab.start()
        engine = NginxLua(lab.admin)
        assert asyncio.run(engine.look()) == Sight(True)
        view = View((Peer("a", "default", "127.0.0.1", replica.port, "up"),))
        asyncio.run(engine.apply(view, True))
        lab.spread(3)
        replica.mode = "slow"
        line = lab.stream()
        expected = Sight(True, view.id, {"a": 1}, True, {"a": Observed(3, 0, 0)})
        await_that(lambda: asyncio.run(engine.look()) == expected, "the sight is that of one stream")
        asyncio.run(engine.apply(View(), True))
        assert asyncio.run(engine.look()).inflight == {"a": 1}
        line.close()
        with pytest.raises(EngineError, match="peer 1 has no valid address"):
            asyncio.run(engine.apply(View((Peer("a", "default", "gpu1", 8000, "up"),)), True))


@nginx_lab.needs_nginx
@nginx_lab.needs_lua
def test_two_hundred_replicas_are_a_matter_of_milliseconds() -> None:
    """A choice among 200 costs a request less than a millisecond, and a view of 200 is applied in less than 100."""
    with nginx_lab.lab("lua") as lab:
        for name in "ab":
            lab.replicas.start(name)
        lab.start()
        ports = [replica.port for replica in lab.replicas.all.values()]
        peers = tuple(Peer(f"host{n}/r0", "default", "127.0.0.1", ports[n % 2], "up") for n in range(200))
        engine = NginxLua(lab.admin)
        begin = time.monotonic()
        asyncio.run(engine.apply(View(peers), True))
        assert time.monotonic() - begin < 1
        lab.spread(400)
        good = [seen.good for seen in asyncio.run(engine.look()).observed.values()]
        assert sum(good) == 400
        assert max(good) <= 12
