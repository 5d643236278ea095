"""Asks real vLLM and the fake the same questions on a server host of the sandbox, and prints both answers.

``python -m benchmarks.fake_vs_real > benchmarks/fake_vs_real/RESULTS.md`` after ``make demo``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import sys
import tempfile

from tests.fakes.vllm.build import build
from tools.sandbox.steps import run

CONTAINER = "llmops-gpu1"
WORK = "/root/fake_vs_real"
HERE = pathlib.Path(__file__).resolve().parent


def on_host(script: str) -> str:
    """Run a shell script on the server host and return what it printed."""
    return run(["docker", "exec", CONTAINER, "sh", "-euc", script]).strip()


def observe(*what: str) -> dict[str, object]:
    """Return the answers of one vLLM."""
    return json.loads(on_host(f"python3 {WORK}/observe.py {' '.join(what)}").splitlines()[-1])


def main() -> int:
    """Print the table; exit status 1 when an answer differs."""
    argparse.ArgumentParser(prog="python -m benchmarks.fake_vs_real", description=__doc__).parse_args()
    on_host(f"rm -rf {WORK}; mkdir -p {WORK}/site")
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(folder)
        for path in (wheel, HERE / "observe.py"):
            run(["docker", "cp", str(path), f"{CONTAINER}:{WORK}/"])
    on_host(f"python3 -m zipfile -e {WORK}/{wheel.name} {WORK}/site")
    on_host(
        f"printf '#!/bin/sh\\nPYTHONPATH={WORK}/site exec python3 -m vllm.entrypoints.cli.main \"$@\"\\n'"
        f" > {WORK}/fake; chmod +x {WORK}/fake"
    )
    real = observe("unit", "vllm@r0")
    fake = observe("command", f"{WORK}/fake")
    on_host(f"rm -rf {WORK}; systemctl start vllm@r0")

    print("# The fake vLLM beside the real one\n")
    load = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    print(f"{datetime.date.today()}, vLLM 0.32.0 CPU build, {load};")
    print("made by `python -m benchmarks.fake_vs_real`.\n")
    print("| Question | real | fake | |\n|---|---|---|---|")
    for question, answer in real.items():
        same = "same" if fake[question] == answer else "**differs**"
        print(f"| {question} | {answer} | {fake[question]} | {same} |")
    return 0 if real == fake else 1


if __name__ == "__main__":
    sys.exit(main())
