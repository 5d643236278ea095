"""``python -m tests.traffic.wheel``: the wheel of the fake vLLM in the sandbox's wheel directory, and its lock."""

from __future__ import annotations

import hashlib
import sys

from tests.fakes.vllm import build
from tools.sandbox.layout import STATE, WHEELS

LOCK = STATE / "fake-vllm" / "requirements.txt"


def main() -> int:
    """Write both; the inventory of molecule/faults names them."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    wheel = build.build(WHEELS)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    LOCK.write_text(f"vllm=={build.VERSION} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
