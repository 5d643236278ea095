"""FAKE vLLM: EngineCore and Worker, real processes joined by pipes, so that signals to them have their real effect.

The API server asks the engine for a step, the engine the worker, the worker takes the time of a step and answers, the
engine answers. Stopped or killed, no step ends any more; without work nothing is asked and nothing is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

# Measured: engine and worker outlive a SIGKILL of the API server by more than half a minute.
_ORPHAN_SECONDS = 36
_PR_SET_NAME = 15


def start_engine() -> tuple[int, int]:
    """Start EngineCore, which starts Worker; return the descriptors to ask for steps and to read their ends from."""
    ask_read, ask_write = os.pipe()
    end_read, end_write = os.pipe()
    if os.fork() == 0:
        os.close(ask_write)
        os.close(end_read)
        _child("VLLM::EngineCor")
        _engine(ask_read, end_write)
        os._exit(0)
    os.close(ask_read)
    os.close(end_write)
    os.set_blocking(end_read, False)
    return ask_write, end_read


def _child(name: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _engine(ask: int, end: int) -> None:
    to_worker, from_engine = os.pipe()
    from_worker, to_engine = os.pipe()
    if os.fork() == 0:
        for descriptor in (ask, end, from_engine, from_worker):
            os.close(descriptor)
        _child("VLLM::Worker")
        while os.read(to_worker, 1):
            time.sleep(float(os.environ.get("FAKE_VLLM_ITL_MS", "10")) / 1000)
            os.write(to_engine, b".")
        os._exit(0)
    os.close(to_worker)
    os.close(to_engine)
    while os.read(ask, 1):
        try:
            os.write(from_engine, b".")
            if not os.read(from_worker, 1):
                return  # the worker died, and the engine with it
            os.write(end, b".")
        except BrokenPipeError:
            return
    time.sleep(_ORPHAN_SECONDS)
