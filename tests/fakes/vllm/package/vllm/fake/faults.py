"""FAKE vLLM: faults that are switched at run time by ``POST /fake/fault``."""

from __future__ import annotations

import os
import signal
from typing import Any

from vllm.fake import hostile
from vllm.fake.engine import Engine
from vllm.fake.stalls import Stalls

# What a kind changes is done where it shows; the kinds below only need a name.
_SHOWN = ["none", "error_500", "reject", "garbage", "hang_after_accept", "sse_error", "stop_early", "short_count"]
_SHOWN += ["truncate", "reset", "wrong_answers"]
_SIGNALS = {
    "freeze_engine": (signal.SIGSTOP, False),
    "freeze_worker": (signal.SIGSTOP, True),
    "die": (signal.SIGKILL, False),
    "die_worker": (signal.SIGKILL, True),
}
_STALLS = ("stall", "stall_server")
KINDS = [*_SHOWN, *_SIGNALS, "slow", "leak", "kv_leak", *_STALLS, *hostile.ANSWERS]
_AT_START = ["dies_at_start", "dies_after_start"]
_OPTIONS = {"slow": {"factor", "ttft_factor", "itl_factor", "slots", "queue"}, "leak": {"mib"}, "kv_leak": {"share"}}
_OPTIONS |= {kind: {"seconds", "every", "for"} for kind in _STALLS}
_STALL_SECONDS, _STALLS_LAST = 3.5, 1800.0


class Faults:
    """The fault of the moment. Another kind ends the one before; memory that leaked stays."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.kind = "none"
        self._slots = engine.slots
        #: requests that may be there at once, instead of ``max-num-queued-reqs``; None leaves that
        self.queue: int | None = None
        self._leaked: list[bytearray] = []
        self._stalls = Stalls(engine.process, self._over)
        first = os.environ.get("FAKE_VLLM_FAULT", "none")
        if first in _AT_START:
            self.kind = first
        else:
            self.switch({"kind": first})

    def switch(self, wanted: dict[str, Any]) -> None:
        """Turn a fault on; ``none`` turns everything off. ValueError for what does not exist."""
        kind = wanted.get("kind")
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, needed is one of {', '.join(KINDS)}")
        unknown = set(wanted) - {"kind"} - _OPTIONS.get(kind, set())
        if unknown:
            raise ValueError(f"{kind} has no option {', '.join(sorted(unknown))}")
        options = {name: float(value) for name, value in wanted.items() if name != "kind"}
        self._normal()
        self.kind, engine, factor = kind, self.engine, options.get("factor", 1.0)
        if kind in _SIGNALS:
            number, worker = _SIGNALS[kind]
            engine.process.signal(number, worker=worker)
        elif kind == "slow":
            engine.speed.first_factor = options.get("ttft_factor", factor)
            engine.speed.step_factor = options.get("itl_factor", factor)
            engine.slots = int(options.get("slots", self._slots))
            self.queue = int(options["queue"]) if "queue" in options else None
        elif kind == "leak":
            self._leaked.append(bytearray(b"x" * (int(options.get("mib", 64)) << 20)))
        elif kind == "kv_leak":
            engine.kv_leaked = int(engine.kv_tokens * options.get("share", 0.5))
        elif kind in _STALLS:
            seconds, every = options.get("seconds", _STALL_SECONDS), options.get("every", 0.0)
            self._stalls.begin(seconds, kind == "stall_server", every, options.get("for", _STALLS_LAST))
        engine.wrong = kind == "wrong_answers"

    def _over(self) -> None:
        self.kind = "none"

    def _normal(self) -> None:
        engine = self.engine
        if self.kind in _STALLS:
            self._stalls.end()
        if self.kind in ("freeze_engine", "freeze_worker"):
            engine.process.signal(signal.SIGCONT, both=True)
        engine.speed.first_factor = engine.speed.step_factor = 1.0
        engine.kv_leaked = 0
        engine.slots, self.queue = self._slots, None
