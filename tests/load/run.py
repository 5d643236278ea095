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


@dataclass(frozen=True)
class Load:
    """What to send. Bounded in count and in time: whichever ends first."""

    requests: int
    seconds: float
    workers: int = 8
    rate: float | None = None  # requests a second; None is the closed loop
    think: float = 0
    streamed: float = 0.5  # share of the requests
    words: tuple[int, int] = (5, 50)
    tokens: tuple[int, int] = (4, 32)
    chat: bool = True
    timeout: float = 120
    seed: int = 1


def asks(load: Load) -> Iterator[Ask]:
    """Yield what to ask, the same for the same seed; streamed ones are spread evenly."""
    dice, due = random.Random(load.seed), 0.0
    for _ in range(load.requests):
        due += load.streamed
        stream = due >= 1
        due -= stream
        yield Ask(dice.randint(*load.words), dice.randint(*load.tokens), stream, load.chat)


def arrivals(load: Load) -> Iterator[float]:
    """Yield the seconds from the begin at which requests of an open loop start: exponential gaps."""
    dice, at = random.Random(load.seed + 1), 0.0
    for _ in range(load.requests):
        at += dice.expovariate(load.rate or 1)
        yield at


class Runner:
    """Sends the load to the servers in turn and keeps every outcome."""

    def __init__(self, servers: list[Server], load: Load, model: str, key: str) -> None:
        self.servers, self.load, self.model, self.key = servers, load, model, key
        self.outcomes: list[Outcome] = []
        self.sent = 0

    async def run(self) -> float:
        """Send everything and return the seconds that it took."""
        begin = time.monotonic()
        progress = asyncio.create_task(self._progress(begin))
        await (self._closed(begin) if self.load.rate is None else self._open(begin))
        progress.cancel()
        for server in self.servers:
            for connection in server.idle:
                connection.close()
        return time.monotonic() - begin

    async def _one(self, ask: Ask) -> None:
        server = self.servers[self.sent % len(self.servers)]
        self.sent += 1
        self.outcomes.append(await perform(server, ask, self.model, self.key, self.load.timeout))

    async def _closed(self, begin: float) -> None:
        queue = asks(self.load)

        async def worker() -> None:
            for ask in queue:
                if time.monotonic() - begin > self.load.seconds:
                    return
                await self._one(ask)
                await asyncio.sleep(self.load.think)

        await asyncio.gather(*(worker() for _ in range(self.load.workers)))

    async def _open(self, begin: float) -> None:
        running: set[asyncio.Task[None]] = set()
        for ask, at in zip(asks(self.load), arrivals(self.load)):
            if at > self.load.seconds:
                break
            await asyncio.sleep(max(0, begin + at - time.monotonic()))
            task = asyncio.create_task(self._one(ask))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _progress(self, begin: float) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            failed = sum(outcome.verdict != GOOD for outcome in self.outcomes)
            text = f"{time.monotonic() - begin:.0f} s: {self.sent} sent, {len(self.outcomes)} ended, {failed} failed"
            print(text, file=sys.stderr, flush=True)
