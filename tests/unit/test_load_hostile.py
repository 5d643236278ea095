"""Hostile clients do what they are named for, leave in time, and what was recorded is sent again to every target."""

from __future__ import annotations

import asyncio
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.fakes.vllm.running import KEY, Fake
from tests.load import hostile, run
from tests.load.request import Ask


def sent_by(kind: str, seconds: float) -> tuple[list[bytes], dict[str, int]]:
    """What a server that answers nothing receives from two such clients, a text for each connection."""
    received: list[bytearray] = []

    async def serve() -> dict[str, int]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            mine = bytearray()
            received.append(mine)
            while piece := await reader.read(1 << 16):
                mine += piece

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
            target = hostile.Target(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", "k", "m")
            return (await hostile.run(target, [kind], 2, seconds))[kind]

    told = asyncio.run(serve())
    return [bytes(content) for content in received], told


SHAPES: dict[str, Callable[[bytes], bool]] = {
    "slow_headers": lambda content: 1 <= len(content) <= 3 and content.startswith(b"P"),
    "slow_body": lambda content: 1 <= len(content.partition(b"\r\n\r\n")[2]) <= 3,
    "slow_reader": lambda content: b'"stream": true' in content,
    "idle": lambda content: content == b"",
    "big_headers": lambda content: len(content) > 1_500_000,
    "wrong_tls": lambda content: content.startswith(b"\x16\x03") and len(content) == 511,
    "bad_chunks": lambda content: content.endswith(b"zz\r\n{}\r\n-1\r\n\r\n") and b"Content-Length" not in content,
    "half_open": lambda content: b'"max_tokens": 900' in content,
    "aborts": lambda content: b'"stream": true' in content,
}


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_client_does_what_it_is_named_for_and_leaves_in_time(kind: str) -> None:
    begin = time.monotonic()
    received, told = sent_by(kind, 1.2)
    assert time.monotonic() - begin < 4
    assert len(received) >= 2
    assert all(SHAPES[kind](content) for content in received), [content[:80] for content in received]
    assert sum(told.values()) >= 2


def test_clients_that_connect_all_the_time_leave_in_time_too() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async def take_part() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
            target = hostile.Target(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", "k", "m")
            for _turn in range(5):
                leaving = asyncio.ensure_future(hostile.run(target, ["aborts"], 32, 0.2))
                _done, still_there = await asyncio.wait([leaving], timeout=3)
                leaving.cancel()
                assert not still_there

    asyncio.run(take_part())


def test_recorded_arrivals_are_sent_to_every_target_at_once(start: Callable[..., Fake], tmp_path: pathlib.Path) -> None:
    fakes = [start(**{"max-num-seqs": 64}) for _turn in range(2)]
    (tmp_path / "key").write_text(KEY)
    words = [sys.executable, "-m", "tests.load", "--key-file", str(tmp_path / "key"), "--model", "m", "--mirror"]
    words += [word for fake in fakes for word in ("--url", f"{fake.url}/v1")]

    def sent(*options: str) -> dict[str, list[tuple[int, bool]]]:
        out = ["--out", str(tmp_path / "out"), "--requests-out", str(tmp_path / "rows")]
        done = subprocess.run([*words, *out, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
        starts = {fake.url: sorted(row["start"] for row in rows if fake.url in row["url"]) for fake in fakes}
        assert all(abs(one - two) < 0.2 for one, two in zip(*starts.values()))
        return {url: sorted((row["tokens"], row["stream"]) for row in rows if url in row["url"]) for url in starts}

    series = str(tmp_path / "series")
    first = sent("--record", series, "--rate", "100", "--requests", "30")
    again = sent("--replay", series)
    asked = list(first.values())
    assert asked[0] == asked[1]
    assert len(asked[0]) == 30
    assert again == first
    by_url = json.loads((tmp_path / "out").read_text())["by_url"]
    assert {told["good"] for told in by_url.values()} == {30}


def test_series_stands_for_rate_and_mix() -> None:
    recorded = ((0.5, Ask(1, 2, True)), (0.7, Ask(3, 4, False)))
    load = run.Load(requests=100, seconds=10, rate=50)
    assert tuple(run.series(run.Load(requests=100, seconds=10, series=recorded))) == recorded
    assert len(list(run.series(load))) == 100
    assert list(run.series(load)) == list(run.series(load))


def test_a_million_arrivals_are_not_made_before_the_first_is_sent() -> None:
    begin = time.monotonic()
    assert next(run.series(run.Load(requests=1_000_000, seconds=10, rate=50)))[0] > 0
    assert time.monotonic() - begin < 0.5
