"""FAKE vLLM: EngineCore and Worker, real processes joined by pipes, so that signals to them have their real effect.

The API server asks the engine for a step and says how long it takes, the engine asks the worker, the worker takes that
time and answers, the engine answers. Stopped or killed, no step ends any more; without work nothing is asked and
nothing is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

# Measured: engine and worker outlive a SIGKILL of the API server by more than half a minute.
_ORPHAN_SECONDS = 36
_PR_SET_NAME = 15
_ORDER = struct.Struct("d")
_END = -1.0
STEP, WORKER_DIED = b".", b"w"


@dataclass
class EngineProcess:
    """EngineCore: its id, where steps are asked for and where their ends are read."""

    pid: int
    ask: int
    end: int

    def step(self, seconds: float) -> None:
        """Ask for a step that takes so long; BrokenPipeError when nobody is there."""
        os.write(self.ask, _ORDER.pack(seconds))

    def stop(self) -> None:
        """Tear down engine and worker, as at a clean end."""
        self.signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self.step(_END)

    def worker(self) -> int:
        """The worker's process id; ProcessLookupError when there is none."""
        with contextlib.suppress(OSError):
            for child in pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                return int(child)
        raise ProcessLookupError("no worker")

    def signal(self, number: int, *, worker: bool = False, both: bool = False) -> None:
        """Send a signal to the engine, to the worker, or to both."""
        with contextlib.suppress(ProcessLookupError):
            if worker or both:
                os.kill(self.worker(), number)
        with contextlib.suppress(ProcessLookupError):
            if both or not worker:
                os.kill(self.pid, number)


def start_engine() -> EngineProcess:
    """Start EngineCore, which starts Worker. To be called before there is an event loop: children would share it."""
    ask_read, ask_write = os.pipe()
    end_read, end_write = os.pipe()
    pid = _child("VLLM::EngineCor", (ask_write, end_read), lambda: _engine(ask_read, end_write))
    os.close(ask_read)
    os.close(end_write)
    os.set_blocking(end_read, False)
    return EngineProcess(pid, ask_write, end_read)


def _child(name: str, not_mine: tuple[int, ...], body: Callable[[], None]) -> int:
    """Run the body in a process of its own, which never returns from here; give back its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for descriptor in not_mine:
            os.close(descriptor)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
        body()
    finally:
        os._exit(0)


def _worker(ask: int, end: int) -> None:
    while order := os.read(ask, _ORDER.size):
        time.sleep(max(0.0, _ORDER.unpack(order)[0]))
        os.write(end, STEP)


def _engine(ask: int, end: int) -> None:
    worker_ask, to_worker = os.pipe()
    from_worker, worker_end = os.pipe()
    _child("VLLM::Worker", (ask, end, to_worker, from_worker), lambda: _worker(worker_ask, worker_end))
    os.close(worker_ask)
    os.close(worker_end)
    while order := os.read(ask, _ORDER.size):
        if _ORDER.unpack(order)[0] == _END:
            return
        try:
            os.write(to_worker, order)
            ended = os.read(from_worker, 1)
        except BrokenPipeError:
            ended = b""
        os.write(end, ended or WORKER_DIED)
        if not ended:
            return
    time.sleep(_ORPHAN_SECONDS)
