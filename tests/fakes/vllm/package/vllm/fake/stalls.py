"""FAKE vLLM: pauses that end by themselves, once or again and again, as of garbage collection or a long prefill."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Callable

from vllm.fake.processes import EngineProcess

# A process of its own: the one that stands still cannot wake itself.
_PAUSE = 'kill -STOP "$1"; sleep "$2"; kill -CONT "$1"'
_JITTER = 0.3  # pauses that repeat begin after 0.7 to 1.3 times the time between them


class Stalls:
    """Stops engine or server for so many seconds; ``over`` is called when no further pause will come."""

    def __init__(self, process: EngineProcess, over: Callable[[], None]) -> None:
        self.process, self.over = process, over
        self._timers: list[asyncio.TimerHandle] = []
        self._helper: subprocess.Popen[bytes] | None = None

    def begin(self, seconds: float, server: bool, every: float, lasting: float) -> None:
        """Pause now; with ``every``, again about every so many seconds, for ``lasting`` seconds in all."""
        if every and every <= seconds:
            raise ValueError(f"every is {every:g}, needed is more than seconds, {seconds:g}")
        self.end()
        loop = asyncio.get_running_loop()
        until = loop.time() + lasting

        def pause() -> None:
            self._timers.clear()
            wait = every * random.uniform(1 - _JITTER, 1 + _JITTER)
            if every and loop.time() + wait < until:
                self._timers.append(loop.call_later(max(wait, seconds + 0.1), pause))
            else:
                self._timers.append(loop.call_later(seconds + 0.1, self._last_ended))
            if server:
                self._stop_server(seconds)
            else:
                self.process.signal(signal.SIGSTOP)
                self._timers.append(loop.call_later(seconds, self.process.signal, signal.SIGCONT))

        # The answer to whoever asked for it leaves first.
        self._timers.append(loop.call_later(0.05, pause))

    def end(self) -> None:
        """No further pause; an engine that stands still goes on."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.process.signal(signal.SIGCONT)

    def _last_ended(self) -> None:
        self._timers.clear()
        self.over()

    def _stop_server(self, seconds: float) -> None:
        if self._helper:
            self._helper.wait()  # it has woken this process, and is gone
        words = ["sh", "-c", _PAUSE, "sh", str(os.getpid()), str(seconds)]
        self._helper = subprocess.Popen(words, stdin=subprocess.DEVNULL)
