"""One request and its verdict."""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from .http import Broken, Server

GOOD = "good"


@dataclass(frozen=True)
class Ask:
    """What is asked for: prompt words, the exact number of tokens to answer, streamed or not."""

    words: int
    tokens: int
    stream: bool
    chat: bool = True


@dataclass
class Outcome:
    """What came back. Times in seconds; ``verdict`` is ``good`` or the kind of failure."""

    ask: Ask
    url: str
    start: float
    verdict: str = GOOD
    reason: str = ""
    request_id: str = ""
    received_bytes: int = 0
    ttft: float | None = None
    tpot: float | None = None
    seconds: float = 0
    itl: list[float] = field(default_factory=list)
    reused: bool = False
    lag: float | None = None  # open loop: how much later than due it was sent, by this client's fault

    @property
    def began(self) -> bool:
        """Whether a byte of the answer had arrived: such a request cannot be sent again by anyone in between."""
        return self.received_bytes > 0

    def fail(self, verdict: str, reason: str) -> Outcome:
        self.verdict, self.reason = verdict, reason[:300]
        return self


async def perform(server: Server, ask: Ask, model: str, key: str, timeout: float) -> Outcome:
    """Send the request and judge the answer; every way to go wrong is a verdict, not an exception."""
    outcome = Outcome(ask, server.url, time.time())
    started = time.monotonic()
    try:
        await asyncio.wait_for(_perform(server, ask, model, key, outcome, started), timeout)
    except asyncio.TimeoutError:
        outcome.fail("timeout", f"no end after {timeout:g} s")
    except Broken as error:
        outcome.received_bytes = outcome.received_bytes or error.received
        stage = {"first_byte": "reset_before_first_byte", "body": "truncated"}.get(error.stage, error.stage)
        outcome.fail(stage, str(error))
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        outcome.fail("garbage", f"no HTTP: {error}")
    outcome.seconds = time.monotonic() - started
    return outcome


def _body(ask: Ask, model: str) -> bytes:
    prompt = " ".join(["word"] * ask.words)
    body: dict[str, Any] = {"model": model, "max_tokens": ask.tokens, "ignore_eos": True, "temperature": 0}
    body |= {"messages": [{"role": "user", "content": prompt}]} if ask.chat else {"prompt": prompt}
    if ask.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


async def _perform(server: Server, ask: Ask, model: str, key: str, outcome: Outcome, started: float) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    path = "/chat/completions" if ask.chat else "/completions"
    connection, answer = await server.post(path, _body(ask, model), headers)
    outcome.reused = connection.used > 1
    outcome.request_id = answer.headers.get("x-request-id", "")
    # The head of an error is the balancer's own; a byte of an answer is a byte of a 200.
    good = answer.status == 200
    outcome.received_bytes = 1 if good else 0
    pieces: list[bytes] = []
    arrivals: list[tuple[int, float]] = []  # bytes of the body until then, seconds since the request
    size = 0
    try:
        async for piece in server.body(connection, answer):
            pieces.append(piece)
            size += len(piece)
            if good:
                outcome.received_bytes += len(piece)
                arrivals.append((size, time.monotonic() - started))
    except Broken:
        if good:
            raise
    text = b"".join(pieces)
    if not good:
        outcome.fail(f"http_{answer.status}", text.decode(errors="replace"))
    elif ask.stream:
        _judge_stream(text, arrivals, outcome)
    else:
        _judge_plain(text, outcome)


def _judge_plain(text: bytes, outcome: Outcome) -> None:
    try:
        document = json.loads(text)
        choice, usage = document["choices"][0], document["usage"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        outcome.fail("garbage", f"{type(error).__name__}: {text[:200]!r}")
        return
    _judge(choice.get("finish_reason"), usage.get("completion_tokens"), outcome)


def _judge_stream(text: bytes, arrivals: list[tuple[int, float]], outcome: Outcome) -> None:
    finish, count, event, events, end = None, None, b"", 0, 0
    carriers: list[int] = []  # numbers of the arrivals that brought tokens
    for line in text.split(b"\n"):
        end += len(line) + 1
        if not line.startswith(b"data:"):
            continue
        event, events = line[5:].strip(), events + 1
        if event == b"[DONE]":
            continue
        try:
            document = json.loads(event)
            if "error" in document:
                outcome.fail("sse_error", event.decode(errors="replace"))
                return
            for choice in document.get("choices") or []:
                finish = choice.get("finish_reason") or finish
                if "role" not in choice.get("delta", ()):  # the first event of a chat carries no token
                    carriers.append(bisect_left(arrivals, (end - 1,)))
            count = (document.get("usage") or {}).get("completion_tokens", count)
        except (ValueError, AttributeError, TypeError):
            outcome.fail("garbage", f"event {event[:200]!r}")
            return
    if event != b"[DONE]":
        outcome.fail("truncated", f"ends without [DONE] after {events} events")
        return
    _time(carriers, arrivals, outcome)
    _judge(finish, count, outcome)


def _time(carriers: list[int], arrivals: list[tuple[int, float]], outcome: Outcome) -> None:
    """Times of tokens: what arrived together counts as one gap; usage and [DONE] are no tokens."""
    times = [arrivals[number][1] for number in dict.fromkeys(carriers) if number < len(arrivals)]
    if times:
        outcome.ttft = times[0]
        outcome.itl = [later - earlier for earlier, later in zip(times, times[1:])]
        if outcome.ask.tokens > 1:
            outcome.tpot = (times[-1] - times[0]) / (outcome.ask.tokens - 1)


def _judge(finish: str | None, count: int | None, outcome: Outcome) -> None:
    if finish != "length":
        outcome.fail("wrong_finish", f"finish_reason is {finish!r}, expected 'length'")
    elif count != outcome.ask.tokens:
        outcome.fail("wrong_count", f"{count} tokens, {outcome.ask.tokens} asked for")
