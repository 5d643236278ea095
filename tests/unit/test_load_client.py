"""The strict client: every way for an answer to be bad has its verdict, and none passes for good."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
from typing import Any, Callable

import pytest

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
    assert outcome.began == (verdict not in ("http_500", "http_503", "reset_before_first_byte"))


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
        outcomes = [await perform(server, Ask(1, 2, False), "m", "k", 5) for _ in range(3)]
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

        listening = [await asyncio.start_server(handle, "127.0.0.1", 0) for _ in range(2)]
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
