"""The strict client: every way for an answer to be bad has its verdict, and none passes for good."""

from __future__ import annotations

import asyncio
import itertools
import json
import pathlib
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.vllm.running import KEY, Fake, await_that
from tests.load import report, run
from tests.load.http import Server
from tests.load.request import GOOD, Ask, Outcome, perform

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: abc\r\n"


def event(**document: Any) -> str:
    return f"data: {json.dumps(document)}\n\n"


def token(finish: str | None = None) -> str:
    return event(choices=[{"delta": {"content": "x"}, "finish_reason": finish}])


USAGE = event(choices=[], usage={"completion_tokens": 2})
DONE = "data: [DONE]\n\n"
PLAIN = {"choices": [{"finish_reason": "length"}], "usage": {"completion_tokens": 2}}


def chunked(*pieces: str, end: bool = True) -> str:
    text = "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces)
    return f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{text}" + ("0\r\n\r\n" if end else "")


def sized(document: Any, status: str = "200 OK", length: int | None = None) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return f"HTTP/1.1 {status}\r\nContent-Length: {length or len(text)}\r\n\r\n{text}"


CASES: dict[str, tuple[str, bool, str]] = {
    "good stream": (chunked(token(), token("length"), USAGE, DONE), True, GOOD),
    "good plain": (sized(PLAIN), False, GOOD),
    "stream cut off between chunks": (chunked(token(), end=False), True, "truncated"),
    "stream that ends without [DONE]": (chunked(token(), token("length"), USAGE), True, "truncated"),
    "SSE error inside 200": (chunked(token(), event(error={"message": "engine"}), DONE), True, "sse_error"),
    "stream aborted by the engine": (chunked(token(), token("abort"), USAGE, DONE), True, "wrong_finish"),
    "stream without a finish": (chunked(token(), USAGE, DONE), True, "wrong_finish"),
    "fewer tokens than asked": (
        chunked(token(), token("length"), event(choices=[], usage={"completion_tokens": 1}), DONE),
        True,
        "wrong_count",
    ),
    "no usage": (chunked(token(), token("length"), DONE), True, "wrong_count"),
    "event that is no JSON": (chunked("data: {nonsense\n\n", DONE), True, "garbage"),
    "plain answer that is no JSON": (sized("<html>"), False, "garbage"),
    "plain answer cut off": (sized(PLAIN, length=500), False, "truncated"),
    "plain answer stopped early": (sized({**PLAIN, "choices": [{"finish_reason": "stop"}]}), False, "wrong_finish"),
    "error of the server": (sized({"error": {}}, "500 Internal Server Error"), False, "http_500"),
    "refused for load": (sized({"error": {}}, "503 Service Unavailable"), True, "http_503"),
    "closed without a byte": ("", True, "reset_before_first_byte"),
    "closed within the head": ("HTTP/1.1 200 OK\r\nConte", True, "truncated"),
    "no HTTP at all": ("SSH-2.0-x\r\n\r\n", True, "garbage"),
    "chunk without a size": (f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n", True, "truncated"),
    "error of the server, cut off": (sized("{}", "502 Bad Gateway", length=50), False, "http_502"),
    "answer over after [DONE]": (chunked(token("length"), USAGE, DONE, token()), True, "truncated"),
}


def answer_with(script: str, ask: Ask, timeout: float = 10, **server: Any) -> Outcome:
    """Serve the script once to a real connection and return what the client makes of it."""

    async def serve() -> Outcome:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(script.encode())
            await writer.drain()
            if script != "hang":
                writer.close()
            else:
                await reader.read()

        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with listening:
            return await perform(Server(f"http://127.0.0.1:{port}/v1", **server), ask, "m", "k", timeout)

    return asyncio.run(serve())


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: str) -> None:
    script, stream, verdict = CASES[case]
    outcome = answer_with(script, Ask(1, 2, stream))
    assert outcome.verdict == verdict, outcome.reason
    # Only an answer of which a byte had come may be called begun: the promise of the balancer is about the others.
    began = not verdict.startswith("http_") and verdict != "reset_before_first_byte" and case != "no HTTP at all"
    assert outcome.began == began


def test_silence_is_a_timeout() -> None:
    assert answer_with("hang", Ask(1, 2, True), timeout=0.2).verdict == "timeout"


def test_nobody_listens() -> None:
    outcome = asyncio.run(perform(Server("http://127.0.0.1:1/v1"), Ask(1, 2, True), "m", "k", 5))
    assert (outcome.verdict, outcome.began) == ("connect", False)


def test_kept_connection_is_used_again() -> None:
    async def serve() -> list[bool]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(sized(PLAIN).encode())

        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        server = Server(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        outcomes = [await perform(server, Ask(1, 2, False), "m", "k", 5) for _turn in range(3)]
        assert all(outcome.verdict == GOOD for outcome in outcomes)
        server.idle.pop().close()
        listening.close()
        return [outcome.reused for outcome in outcomes]

    assert asyncio.run(serve()) == [False, True, True]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([3.0], {"p50": 3, "p90": 3, "p99": 3, "max": 3}),
        (range(1, 101), {"p50": 50, "p90": 90, "p99": 99, "max": 100}),
        ([1, 2], {"p50": 1, "p90": 2, "p99": 2, "max": 2}),
    ],
)
def test_percentiles(values: Any, expected: Any) -> None:
    assert report.percentiles(list(values)) == expected


def test_arrivals_are_poisson_with_the_rate_asked_for() -> None:
    load = run.Load(requests=20000, seconds=1e9, rate=50)
    times = list(run.arrivals(load))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    # Exponential gaps: the standard deviation is the mean.
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert times == list(run.arrivals(load)), "the same seed gives the same arrivals"


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.5, 200), (1, 400), (0.25, 100)])
def test_share_of_streams_is_exact(share: float, expected: int) -> None:
    load = run.Load(requests=400, seconds=1, streamed=share)
    assert sum(ask.stream for ask in run.asks(load)) == expected


def test_summary_counts_what_was_lost_before_its_first_byte() -> None:
    lost = Outcome(Ask(1, 2, True), "u", 0).fail("reset_before_first_byte", "")
    begun = Outcome(Ask(1, 2, True), "u", 0, received_bytes=5).fail("truncated", "")
    told = report.summary([lost, begun, Outcome(Ask(1, 2, False), "u", 0)], 1)
    assert (told["good"], told["failed"], told["failed_before_first_byte"]) == (1, 2, 1)
    assert "1 of them before the first byte" in report.text(told)


@pytest.mark.parametrize("loop", [{"workers": 4}, {"rate": 500.0}])
def test_run_sends_exactly_what_was_asked_to_every_server(loop: dict[str, Any]) -> None:
    async def serve() -> Callable[..., Any]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked = json.loads(await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0])))
                usage = {"completion_tokens": asked["max_tokens"]}
                text = sized({**PLAIN, "usage": usage})
                if asked.get("stream"):
                    text = chunked(token("length"), event(choices=[], usage=usage), DONE)
                writer.write(text.encode())

        listening = [await asyncio.start_server(handle, "127.0.0.1", 0) for _turn in range(2)]
        servers = [Server(f"http://127.0.0.1:{item.sockets[0].getsockname()[1]}/v1") for item in listening]
        runner = run.Runner(servers, run.Load(requests=40, seconds=30, **loop), "m", "k")
        seconds = await runner.run()
        for item in listening:
            item.close()
        return report.summary(runner.outcomes, seconds), [
            sum(outcome.url == server.url for outcome in runner.outcomes) for server in servers
        ]

    told, spread = asyncio.run(serve())
    assert (told["requests"], told["good"], told["streamed"]) == (40, 40, 20)
    assert spread == [20, 20]


def test_request_id_is_kept() -> None:
    outcome = answer_with(chunked(token(), end=False), Ask(1, 2, True))
    assert (outcome.request_id, outcome.verdict) == ("abc", "truncated")


def test_times_are_of_tokens_alone() -> None:
    """The first event of a chat, the usage and [DONE] carry no token; what arrives together is one gap."""
    role = event(choices=[{"delta": {"role": "assistant", "content": ""}}])
    pieces = [role, token(), token() + token(), token("length"), USAGE.replace("2}", "4}"), DONE]

    async def serve() -> Outcome:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
            for piece in pieces:
                writer.write(f"{len(piece):x}\r\n{piece}\r\n".encode())
                await asyncio.sleep(0.1)
            writer.write(b"0\r\n\r\n")

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            return await perform(Server(url), Ask(1, 4, True), "m", "k", 5)

    outcome = asyncio.run(serve())
    assert outcome.verdict == GOOD, outcome.reason
    assert (outcome.ttft or 0) > 0.08
    assert len(outcome.itl) == 2
    assert outcome.tpot == pytest.approx(sum(outcome.itl) / 3)


def test_request_that_timed_out_leaves_no_connection_behind() -> None:
    gone = threading.Event()

    async def serve() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(65536):
                pass
            gone.set()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
            server = Server(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
            assert (await perform(server, Ask(1, 2, True), "m", "k", 0.1)).verdict == "timeout"
            await asyncio.sleep(0.1)
            assert server.idle == []
            assert gone.is_set()

    asyncio.run(serve())


def test_unencrypted_answer_to_a_tls_client_is_told_as_tls() -> None:
    async def serve() -> Outcome:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
            url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            return await perform(Server(url, ssl.create_default_context()), Ask(1, 2, True), "m", "k", 5)

    assert asyncio.run(serve()).verdict == "tls"


def test_mixes_draw_by_weight_and_the_same_for_the_same_seed() -> None:
    load = run.Load(requests=5000, seconds=1, tokens=((4, 8, 9), (600, 800, 1)))
    wanted = [ask.tokens for ask in run.asks(load)]
    assert sum(count >= 600 for count in wanted) == pytest.approx(500, rel=0.15)
    assert {4, 8} <= set(wanted)
    assert all(4 <= count <= 8 or 600 <= count <= 800 for count in wanted)
    assert wanted == [ask.tokens for ask in run.asks(load)]


def ask_fake(fake: Fake, ask: Ask, timeout: float = 5) -> Outcome:
    return asyncio.run(perform(Server(f"{fake.url}/v1"), ask, "m", KEY, timeout))


FAULTS: dict[str, tuple[str, str]] = {  # verdicts of a streamed and of a plain request
    "none": (GOOD, GOOD),
    "error_500": ("http_500", "http_500"),
    "reject": ("http_503", "http_503"),
    "garbage": ("truncated", "garbage"),
    "reset": ("reset_before_first_byte", "reset_before_first_byte"),
    "truncate": ("truncated", "reset_before_first_byte"),
    "sse_error": ("sse_error", GOOD),
    "stop_early": ("wrong_finish", "wrong_finish"),
    "short_count": ("wrong_count", "wrong_count"),
    "wrong_answers": (GOOD, GOOD),
    "freeze_engine": ("timeout", "timeout"),
    "freeze_worker": ("timeout", "timeout"),
    "hang_after_accept": ("timeout", "timeout"),
    "slow": (GOOD, GOOD),
    "stall": (GOOD, GOOD),
    "stall_server": (GOOD, GOOD),
    "huge_headers": ("truncated", "garbage"),
    "endless_body": ("timeout", "timeout"),
    "bad_chunks": ("truncated", "truncated"),
    "slow_body": ("timeout", "timeout"),
}


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("kind", FAULTS)
def test_verdict_on_every_fault_of_the_fake(start: Callable[..., Fake], kind: str, chat: bool) -> None:
    fake = start()
    fake.fault(kind, **({"factor": 4} if kind == "slow" else {}))
    verdicts = []
    for streamed in (True, False):
        outcome = ask_fake(fake, Ask(5, 6, streamed, chat), timeout=0.7 if "timeout" in FAULTS[kind] else 5)
        verdicts.append(outcome.verdict)
        if outcome.verdict in ("truncated", "sse_error"):
            assert outcome.began
    assert tuple(verdicts) == FAULTS[kind]


def test_death_and_drain_of_a_server_are_told_apart(start: Callable[..., Fake]) -> None:
    dying, draining = start({"FAKE_VLLM_ITL_MS": "50"}), start({"FAKE_VLLM_ITL_MS": "50"})

    async def during(fake: Fake, act: Callable[[], Any]) -> tuple[Outcome, Outcome]:
        server = Server(f"{fake.url}/v1")
        running = asyncio.create_task(perform(server, Ask(1, 40, True), "m", KEY, 20))
        await asyncio.sleep(0.5)
        act()
        await asyncio.sleep(0.1)
        return await perform(server, Ask(1, 4, True), "m", KEY, 20), await running

    new, old = asyncio.run(during(draining, draining.process.terminate))
    assert (new.verdict, old.verdict) == ("http_500", GOOD)
    new, old = asyncio.run(during(dying, lambda: dying.fault("die")))
    assert (new.verdict, old.verdict) == ("http_500", "sse_error")
    dying.process.wait(10)
    assert ask_fake(dying, Ask(1, 2, True)).verdict == "connect"


def command(fake: Fake, folder: pathlib.Path, *options: str) -> list[str]:
    (folder / "key").write_text(KEY)
    words = [sys.executable, "-m", "tests.load", "--url", f"{fake.url}/v1", "--api-key-file", str(folder / "key")]
    return [*words, "--model", "m", "--out", str(folder / "result.json"), *options]


@pytest.mark.parametrize(
    ("kind", "options", "status"),
    [
        ("none", [], 0),
        ("error_500", [], 1),
        ("error_500", ["--allow-begun"], 1),
        ("truncate", ["--streamed", "1"], 1),
        ("truncate", ["--streamed", "1", "--allow-begun"], 0),
        ("truncate", ["--streamed", "1", "--allow-truncated-after-first-byte", "19"], 1),
        ("truncate", ["--streamed", "1", "--allow-truncated-after-first-byte", "20"], 0),
    ],
)
def test_exit_status(
    start: Callable[..., Fake], tmp_path: pathlib.Path, kind: str, options: list[str], status: int
) -> None:
    fake = start(**{"max-num-seqs": 16})
    fake.fault(kind)
    done = subprocess.run(
        command(fake, tmp_path, "--requests", "20", *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["requests"] == 20
    assert told["load"]["seed"] == 1
    assert len(told["failures"]) == told["failed"]
    assert "load average" in done.stdout


def test_counts_agree_with_the_servers(start: Callable[..., Fake], tmp_path: pathlib.Path) -> None:
    fake = start({"FAKE_VLLM_ITL_MS": "2"}, **{"max-num-seqs": 64})
    options = ["--requests", "60", "--rate", "100", "--tokens", "2-10*9,50*1"]
    assert subprocess.run(command(fake, tmp_path, *options), capture_output=True, check=False).returncode == 0
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["tokens"] == fake.metric('vllm:generation_tokens_total{engine="0",model_name="m"}')
    assert told["lag"]["p50"] < 0.5


def test_signal_ends_the_run_with_a_result(start: Callable[..., Fake], tmp_path: pathlib.Path) -> None:
    fake = start()
    process = subprocess.Popen(command(fake, tmp_path, "--requests", "100000"), stdout=subprocess.DEVNULL)
    await_that(lambda: fake.metric('vllm:generation_tokens_total{engine="0",model_name="m"}') > 20, "it runs")
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert process.wait(20) == 0
    assert time.monotonic() - begin < 10
    assert json.loads((tmp_path / "result.json").read_text())["good"] > 0


def test_run_without_a_request_proves_nothing(start: Callable[..., Fake], tmp_path: pathlib.Path) -> None:
    done = subprocess.run(command(start(), tmp_path, "--requests", "0"), stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
