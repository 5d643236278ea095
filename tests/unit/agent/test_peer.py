"""The port on the private network: what peers believe, and what strangers cannot do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import peer

KEY = "k" * 32
NONCE = "00112233445566778899aabbccddeeff"
PAYLOAD = {"name": "lb1", "admin": {"g1/r0": {"state": "drained", "generation": 3}}, "wedged": {"g2/r0": 12.5}}
METRICS = "# TYPE up gauge\nup 1\n"


def serve(
    scene: Callable[[int], Awaitable[Any]], keys: tuple[str, ...] = (KEY,), seconds: float = 5.0, **more: Any
) -> Any:
    """Run a scene against a server of its own; returns what it returns."""

    async def run() -> Any:
        server = peer.PeerServer(lambda: METRICS, lambda: {**PAYLOAD, **more}, lambda: keys, seconds)
        port = await server.start("127.0.0.1", 0)
        try:
            return await scene(port)
        finally:
            await server.close()

    return asyncio.run(run())


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_a_peer_with_a_key_in_common_is_believed() -> None:
    told = serve(lambda port: peer.ask("127.0.0.1", port, ["another" * 6, KEY]))
    assert told == {**PAYLOAD, "api": 1}


def test_the_answer_of_another_agent_is_not_believed() -> None:
    assert serve(lambda port: peer.ask("127.0.0.1", port, [KEY], "lb2"), name="lb2")["name"] == "lb2"
    with pytest.raises(peer.PeerError, match="lb1 answers there, and lb2 was asked"):
        serve(lambda port: peer.ask("127.0.0.1", port, [KEY], "lb2"), name="lb1")


def test_the_signature_is_that_of_the_contract() -> None:
    answer = serve(lambda port: raw(port, get(f"/peer?nonce={NONCE}")))
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    text = json.dumps(found["payload"], sort_keys=True, separators=(",", ":"))

    assert found["mac"] == hmac.new(KEY.encode(), f"{NONCE}\n{text}".encode(), hashlib.sha256).hexdigest()


def test_a_key_that_is_not_known_is_told() -> None:
    with pytest.raises(peer.PeerError, match="no key here fits the signature: .*llmops_backend_keys"):
        serve(lambda port: peer.ask("127.0.0.1", port, ["x" * 32]))


def test_an_old_answer_and_a_changed_one_are_not_believed() -> None:
    payload = {**PAYLOAD, "api": 1}
    good = {"payload": payload, "mac": peer.signature(KEY, NONCE, payload)}
    assert peer.verified("lb1", json.dumps(good).encode(), [KEY], NONCE) == payload
    with pytest.raises(peer.PeerError):
        peer.verified("lb1", json.dumps(good).encode(), [KEY], peer.new_nonce())
    changed = {**good, "payload": {**payload, "name": "lb2"}}
    with pytest.raises(peer.PeerError):
        peer.verified("lb1", json.dumps(changed).encode(), [KEY], NONCE)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"payload": 1}', b'{"payload": {}, "mac": null}', b"[" * 99999])
def test_an_answer_that_is_none_is_an_error_of_the_peer(body: bytes) -> None:
    with pytest.raises(peer.PeerError, match="^lb1: "):
        peer.verified("lb1", body, [KEY], NONCE)


def test_another_version_names_both() -> None:
    payload = {**PAYLOAD, "api": 7}
    body = json.dumps({"payload": payload, "mac": peer.signature(KEY, NONCE, payload)}).encode()
    with pytest.raises(peer.PeerError, match="that agent speaks API 7, this one 1"):
        peer.verified("lb1", body, [KEY], NONCE)


def test_metrics_need_no_key() -> None:
    answer = serve(lambda port: raw(port, get("/metrics")), keys=())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert answer.endswith(METRICS.encode())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/peer/"), 404),
        (get("/peer"), 400),
        (get("/peer?nonce=1"), 400),
        (get("/peer?nonce=" + "g" * 32), 400),
        (get("/metrics").replace(b"GET", b"POST"), 400),
        (get("/metrics").replace(b"GET", b"DELETE"), 400),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n", 400),
        (get("/" + "x" * 9000), 400),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET http://[bad HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_everything_else_is_refused(request_: bytes, status: int) -> None:
    answer = serve(lambda port: raw(port, request_))
    assert answer.split(b" ")[1] == str(status).encode()


def test_without_a_key_there_is_no_peer_to_ask() -> None:
    with pytest.raises(peer.PeerError, match="answered 404"):
        serve(lambda port: peer.ask("127.0.0.1", port, [KEY]), keys=())


def test_connections_that_say_nothing_end_and_take_no_place_for_ever() -> None:
    async def scene(port: int) -> tuple[list[bytes], Any]:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _turn in range(peer.CONNECTIONS + 5)]
        ends = await asyncio.gather(*(reader.read() for reader, _writer in idle), return_exceptions=True)
        for _reader, writer in idle:
            writer.close()
        return ends, await peer.ask("127.0.0.1", port, [KEY])

    ends, told = serve(scene, seconds=0.5)
    assert all(end == b"" or isinstance(end, ConnectionError) for end in ends)
    assert told["name"] == "lb1"


def test_a_head_that_comes_byte_by_byte_ends_at_the_limit() -> None:
    async def scene(port: int) -> float:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def trickle() -> None:
            while True:
                writer.write(b"G")
                await writer.drain()
                await asyncio.sleep(0.05)

        task = asyncio.ensure_future(trickle())
        await asyncio.gather(reader.read(), return_exceptions=True)
        task.cancel()
        return time.monotonic() - began

    assert 0.3 < serve(scene, seconds=0.4) < 3


def test_a_client_that_does_not_read_is_left_at_the_limit() -> None:
    async def scene(port: int) -> Any:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(get(f"/peer?nonce={NONCE}"))
        told = await peer.ask("127.0.0.1", port, [KEY], seconds=10)
        writer.transport.abort()
        return len(told["filler"])

    assert serve(scene, seconds=0.5, filler="x" * 5_000_000) == 5_000_000


def strange(answer: bytes) -> Any:
    """Ask something that accepts and then says this, and nothing more."""

    async def run() -> Any:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if answer:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await peer.ask("127.0.0.1", port, [KEY], seconds=0.3)
        finally:
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "no answer within 0.3 s"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "the answer is none of an agent"),
        (b"HTTP/1.1 500 X\r\n\r\nboom", "answered 500: b'boom'"),
    ],
)
def test_what_a_stranger_says_is_an_error_with_its_address(answer: bytes, words: str) -> None:
    with pytest.raises(peer.PeerError, match=r"^127\.0\.0\.1:\d+: ") as told:
        strange(answer)
    assert words in str(told.value)


def test_a_peer_that_is_not_there_is_told() -> None:
    with pytest.raises(peer.PeerError, match="127.0.0.1:1: "):
        asyncio.run(peer.ask("127.0.0.1", 1, [KEY]))
