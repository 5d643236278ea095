"""FAKE vLLM: slots, queue and tokens. A step of the engine gives every running request one token."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vllm.fake.metrics import Metrics
from vllm.fake.processes import STEP, EngineProcess

_LETTERS = "abcdefghijklmnopqrstuvwxyz "


class EngineDead(Exception):
    """EngineCore encountered an issue."""

    def __init__(self) -> None:
        super().__init__("EngineCore encountered an issue. See stack trace (above) for the root cause.")


@dataclass(eq=False)
class Generation:
    """One request in the engine. Each token goes to ``on_token`` at once; ``over`` ends, or fails, with the request."""

    prompt_tokens: int
    wanted: int
    stop_at: int  # tokens after which the answer ends by itself; above ``wanted`` never
    priority: int
    on_token: Callable[[Generation, str], None]
    over: asyncio.Future[None]
    arrived: float = field(default_factory=time.monotonic)
    begun: float = 0
    first: float = 0
    last: float = 0
    made: int = 0
    preempted: int = 0
    finish: str | None = None


@dataclass
class Speed:
    """Seconds, and the factors of the fault ``slow``."""

    first: float = float(os.environ.get("FAKE_VLLM_TTFT_MS", "20")) / 1000
    prompt_token: float = float(os.environ.get("FAKE_VLLM_PREFILL_US_PER_TOKEN", "0")) / 1e6
    step: float = float(os.environ.get("FAKE_VLLM_ITL_MS", "10")) / 1000
    first_factor: float = 1
    step_factor: float = 1

    def prefill(self, prompt_tokens: int) -> float:
        """Seconds from the begin of a request to its first token."""
        return (self.first + self.prompt_token * prompt_tokens) * self.first_factor


class Engine:
    """The scheduler in front of the processes."""

    def __init__(
        self, process: EngineProcess, model: str, slots: int, kv_tokens: int, by_priority: bool, metrics: Metrics
    ) -> None:
        self.process, self.model, self.slots, self.kv_tokens = process, model, slots, kv_tokens
        self.by_priority, self.metrics = by_priority, metrics
        self.speed = Speed()
        self.kv_leaked = 0
        self.wrong = False
        self.running: list[Generation] = []
        self.waiting: list[Generation] = []
        self.dead = asyncio.Event()
        self.worker_died = False
        self._stepping = False
        asyncio.get_running_loop().add_reader(process.end, self._step_ended)

    @property
    def requests(self) -> int:
        """Running and waiting."""
        return len(self.running) + len(self.waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is held."""
        return min(1.0, (self._kv_used() + self.kv_leaked) / self.kv_tokens)

    def _kv_used(self) -> int:
        return sum(generation.prompt_tokens + generation.made for generation in self.running)

    def submit(self, generation: Generation) -> None:
        """Queue a request."""
        if self.dead.is_set():
            raise EngineDead
        self.metrics.prompt_tokens += generation.prompt_tokens
        self.waiting.append(generation)
        self._go_on()

    def cancel(self, generation: Generation) -> None:
        """Forget a request whose client is gone; nothing happens when it is over."""
        if not generation.over.done():
            self._end(generation, "abort")
            self._go_on()

    def fail(self, generation: Generation) -> None:
        """End a request with an error."""
        if not generation.over.done():
            self._end(generation, "error", EngineDead())

    def cut(self) -> None:
        """End everything that runs or waits with an error."""
        for generation in [*self.running, *self.waiting]:
            self.fail(generation)

    def die(self) -> None:
        """The engine process is gone."""
        if not self.dead.is_set():
            asyncio.get_running_loop().remove_reader(self.process.end)
            self.dead.set()
            self.cut()

    def _end(self, generation: Generation, reason: str, error: Exception | None = None) -> None:
        (self.running if generation in self.running else self.waiting).remove(generation)
        self.metrics.finished[reason] += 1
        if error is not None:
            generation.over.set_exception(error)
        else:
            generation.over.set_result(None)

    def _next(self) -> Generation:
        if self.by_priority:
            return min(self.waiting, key=lambda generation: (generation.priority, generation.arrived))
        return self.waiting[0]

    def _go_on(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            generation = self._next()
            held = self._kv_used() + self.kv_leaked + generation.prompt_tokens + generation.made
            if self.running and held > self.kv_tokens:
                break
            self.waiting.remove(generation)
            if not generation.begun:
                generation.begun = time.monotonic()
                self.metrics.observe("vllm:request_queue_time_seconds", generation.begun - generation.arrived)
            self.running.append(generation)
        if self.running and not self._stepping and not self.dead.is_set():
            self._stepping = True
            try:
                self.process.step(self.speed.step * self.speed.step_factor)
            except BrokenPipeError:
                self.die()

    def _step_ended(self) -> None:
        try:
            told = os.read(self.process.end, 1)
        except BlockingIOError:
            return
        if told != STEP:
            self.worker_died = bool(told)
            self.die()
            return
        self._stepping = False
        now, made = time.monotonic(), 0
        for generation in list(self.running):
            if not generation.over.done() and self._token_due(generation, now):
                made += 1
        self.metrics.generation_tokens += made
        self.metrics.observe("vllm:iteration_tokens_total", made)
        while len(self.running) > 1 and self._kv_used() + self.kv_leaked > self.kv_tokens:
            victim = self.running.pop()
            victim.preempted += 1
            self.metrics.preemptions += 1
            self.waiting.insert(0, victim)
        self._go_on()

    def _token_due(self, generation: Generation, now: float) -> bool:
        """Give a running request its token; False while it is in its prefill."""
        if generation.made:
            self.metrics.observe("vllm:inter_token_latency_seconds", now - generation.last)
        elif now - generation.begun < self.speed.prefill(generation.prompt_tokens):
            return False
        else:
            generation.first = now
            self.metrics.observe("vllm:time_to_first_token_seconds", now - generation.arrived)
        generation.last = now
        token = "!" if self.wrong else self._token(generation)
        generation.made += 1
        if generation.made >= generation.wanted:
            generation.finish = "length"
        elif generation.made >= generation.stop_at:
            generation.finish = "stop"
        generation.on_token(generation, token)
        if generation.finish and not generation.over.done():
            self._observe(generation, now)
            self._end(generation, generation.finish)
        return True

    def _token(self, generation: Generation) -> str:
        """The same prompt length gives the same answer; another model or revision another one."""
        seed = f"{self.model}:{generation.prompt_tokens}:{generation.made}".encode()
        return _LETTERS[hashlib.sha256(seed).digest()[0] % len(_LETTERS)]

    def _observe(self, generation: Generation, now: float) -> None:
        decode = now - generation.first
        values = {
            "vllm:e2e_request_latency_seconds": now - generation.arrived,
            "vllm:request_inference_time_seconds": now - generation.begun,
            "vllm:request_prefill_time_seconds": generation.first - generation.begun,
            "vllm:request_decode_time_seconds": decode,
            "vllm:request_time_per_output_token_seconds": decode / max(1, generation.made - 1),
            "vllm:request_prompt_tokens": generation.prompt_tokens,
            "vllm:request_prefill_kv_computed_tokens": generation.prompt_tokens,
            "vllm:request_generation_tokens": generation.made,
            "vllm:request_max_num_generation_tokens": generation.wanted,
            "vllm:request_params_max_tokens": generation.wanted,
            "vllm:request_params_n": 1,
            "vllm:request_num_preemptions": generation.preempted,
        }
        for name, value in values.items():
            self.metrics.observe(name, value)
