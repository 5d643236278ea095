"""Runs many requests: closed loop (workers that wait for their answers) or open loop (Poisson arrivals)."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .http import Server
from .request import GOOD, Ask, Outcome, perform

PROGRESS_SECONDS = 10

# Spans with weights: ((4, 32, 9), (600, 800, 1)) is nine short ones for each long one.
Mix = tuple[tuple[int, int, float], ...]

# Arrivals: seconds from the begin, and what is asked then.
Series = tuple[tuple[float, Ask], ...]


@dataclass(frozen=True)
class Load:
    """What to send. Bounded in count and in time: whichever ends first."""

    requests: int
    seconds: float
    workers: int = 8
    rate: float | None = None  # requests a second; None is the closed loop
    think: float = 0
    streamed: float = 0.5  # share of the requests
    words: Mix = ((5, 50, 1),)
    tokens: Mix = ((4, 32, 1),)
    chat: bool = True
    timeout: float = 120
    seed: int = 1
    series: Series = ()  # arrivals that were recorded; they stand for rate, mix and count
    mirrored: bool = False  # open loop: every arrival goes to every server, at once


def asks(load: Load) -> Iterator[Ask]:
    """Yield what to ask, the same for the same seed; streamed ones are spread evenly."""
    dice, due = random.Random(load.seed), 0.0
    for _turn in range(load.requests):
        due += load.streamed
        stream = due >= 1
        due -= stream
        yield Ask(_draw(dice, load.words), _draw(dice, load.tokens), stream, load.chat)


def _draw(dice: random.Random, mix: Mix) -> int:
    low, high, _unused = dice.choices(mix, [weight for _unused, _unused, weight in mix])[0]
    return dice.randint(low, high)


def arrivals(load: Load) -> Iterator[float]:
    """Yield the seconds from the begin at which requests of an open loop start: exponential gaps."""
    dice, at = random.Random(load.seed + 1), 0.0
    for _turn in range(load.requests):
        at += dice.expovariate(load.rate or 1)
        yield at


def series(load: Load) -> Iterator[tuple[float, Ask]]:
    """Yield the arrivals of an open loop, recorded ones or new."""
    yield from load.series or zip(arrivals(load), asks(load))


class Runner:
    """Sends the load to the servers in turn and keeps every outcome."""

    def __init__(self, servers: list[Server], load: Load, model: str, key: str) -> None:
        self.servers, self.load, self.model, self.key = servers, load, model, key
        self.outcomes: list[Outcome] = []
        self.sent = 0
        self.stopped = False

    def stop(self) -> None:
        """Start no further request; those that run may end."""
        self.stopped = True

    async def run(self) -> float:
        """Send everything and return the seconds that it took."""
        begin = time.monotonic()
        progress = asyncio.create_task(self._progress(begin))
        closed = self.load.rate is None and not self.load.series
        await (self._closed(begin) if closed else self._open(begin))
        progress.cancel()
        for server in self.servers:
            for connection in server.idle:
                connection.close()
        return time.monotonic() - begin

    async def _one(self, ask: Ask, lag: float | None = None, server: Server | None = None) -> None:
        server = server or self.servers[self.sent % len(self.servers)]
        self.sent += 1
        outcome = await perform(server, ask, self.model, self.key, self.load.timeout)
        outcome.lag = lag
        self.outcomes.append(outcome)

    async def _closed(self, begin: float) -> None:
        queue = asks(self.load)

        async def worker() -> None:
            for ask in queue:
                if self.stopped or time.monotonic() - begin > self.load.seconds:
                    return
                await self._one(ask)
                await asyncio.sleep(self.load.think)

        await asyncio.gather(*(worker() for _turn in range(self.load.workers)))

    async def _open(self, begin: float) -> None:
        running: set[asyncio.Task[None]] = set()
        targets = self.servers if self.load.mirrored else [None]
        for at, ask in series(self.load):
            if at > self.load.seconds:
                break
            await asyncio.sleep(max(0, begin + at - time.monotonic()))
            if self.stopped:
                break
            for server in targets:
                task = asyncio.create_task(self._one(ask, time.monotonic() - begin - at, server))
                running.add(task)
                task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _progress(self, begin: float) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            failed = sum(outcome.verdict != GOOD for outcome in self.outcomes)
            text = f"{time.monotonic() - begin:.0f} s: {self.sent} sent, {len(self.outcomes)} ended, {failed} failed"
            print(text, file=sys.stderr, flush=True)
