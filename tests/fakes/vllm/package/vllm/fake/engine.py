"""FAKE vLLM: slots, queue and tokens. A step of the engine gives every running request one token."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import deque
from dataclasses import dataclass, field

from vllm.fake.metrics import Metrics
from vllm.fake.processes import start_engine

_LETTERS = "abcdefghijklmnopqrstuvwxyz "


@dataclass
class Generation:
    """One request in the engine; tokens arrive in ``tokens``, None is the end, an exception a failure."""

    prompt_tokens: int
    wanted: int
    arrived: float
    tokens: asyncio.Queue[str | None | Exception] = field(default_factory=asyncio.Queue)
    begun: float = 0
    last: float = 0
    made: int = 0


class EngineDead(Exception):
    """EngineCore encountered an issue."""


class Engine:
    """The queue in front of the processes."""

    def __init__(self, model: str, slots: int, metrics: Metrics) -> None:
        self.model, self.slots, self.metrics = model, slots, metrics
        self.running: list[Generation] = []
        self.waiting: deque[Generation] = deque()
        self.ttft = float(os.environ.get("FAKE_VLLM_TTFT_MS", "20")) / 1000
        self.slowness = 1.0
        self.dead = asyncio.Event()
        self._ask, self._end = start_engine()
        self._stepping = False

    def attach(self) -> None:
        """Begin to listen to the engine process."""
        asyncio.get_running_loop().add_reader(self._end, self._step_ended)

    def submit(self, prompt_tokens: int, wanted: int) -> Generation:
        """Queue a request."""
        if self.dead.is_set():
            raise EngineDead
        generation = Generation(prompt_tokens, wanted, time.monotonic())
        self.metrics.prompt_tokens += prompt_tokens
        self.waiting.append(generation)
        self._go_on()
        return generation

    def cancel(self, generation: Generation, reason: str = "abort") -> None:
        """Forget a request whose client is gone."""
        if generation in self.running:
            self.running.remove(generation)
        elif generation in self.waiting:
            self.waiting.remove(generation)
        else:
            return
        self.metrics.finished[reason] += 1
        self._go_on()

    @property
    def kv_used(self) -> int:
        """Tokens that the running requests hold."""
        return sum(generation.prompt_tokens + generation.made for generation in self.running)

    def _go_on(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            generation = self.waiting.popleft()
            generation.begun = time.monotonic()
            self.metrics.observe("vllm:request_queue_time_seconds", generation.begun - generation.arrived)
            self.running.append(generation)
        if self.running and not self._stepping and not self.dead.is_set():
            self._stepping = True
            try:
                os.write(self._ask, b".")
            except BrokenPipeError:
                self._die()

    def _step_ended(self) -> None:
        try:
            if not os.read(self._end, 1):
                self._die()
                return
        except BlockingIOError:
            return
        self._stepping = False
        now, made = time.monotonic(), 0
        for generation in list(self.running):
            if now - generation.begun < self.ttft * self.slowness:
                continue
            if generation.made == 0:
                self.metrics.observe("vllm:time_to_first_token_seconds", now - generation.arrived)
            elif now - generation.last < (self.slowness - 1) * 0.05:
                continue
            else:
                self.metrics.observe("vllm:inter_token_latency_seconds", now - generation.last)
            generation.last, made = now, made + 1
            generation.tokens.put_nowait(self._token(generation))
            generation.made += 1
            if generation.made >= generation.wanted:
                self.running.remove(generation)
                self.metrics.finished["length"] += 1
                self.metrics.observe("vllm:e2e_request_latency_seconds", now - generation.arrived)
                generation.tokens.put_nowait(None)
        self.metrics.generation_tokens += made
        self.metrics.observe("vllm:iteration_tokens_total", made)
        self._go_on()

    def _token(self, generation: Generation) -> str:
        """The same prompt length gives the same answer; another model or revision another one."""
        seed = f"{self.model}:{generation.prompt_tokens}:{generation.made}".encode()
        return _LETTERS[hashlib.sha256(seed).digest()[0] % len(_LETTERS)]

    def _die(self) -> None:
        asyncio.get_running_loop().remove_reader(self._end)
        self.cut()
        self.dead.set()

    def cut(self) -> None:
        """End everything that runs or waits with an error."""
        for generation in [*self.running, *self.waiting]:
            generation.tokens.put_nowait(EngineDead("EngineCore encountered an issue."))
            self.metrics.finished["error"] += 1
        self.running.clear()
        self.waiting.clear()
