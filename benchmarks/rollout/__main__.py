"""``python -m benchmarks.rollout MEASURE ...|all``: what rollouts promise, measured; rows go to RESULTS.md.

Needs a machine that may run the sandbox's containers (see ``make demo``). Without ``--keep`` it begins with fresh
hosts; they stay up afterwards, and `make demo-down` removes them.
"""

from __future__ import annotations

import pathlib
import sys

from benchmarks.command import Benchmark
from benchmarks.rollout import faults, update, versions
from tests.traffic.fleet import ROLLED

FILE = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
HEAD = """# What a rollout does

Made by `python -m benchmarks.rollout MEASURE ...`, which replaces the rows of what it measures. Nine replicas of the
fake vLLM in two pools, or three of real vLLM with a tiny model; load comes from the client container, all hosts are
containers on one machine and share its cores. `load` is its load average when the measure ended, with the measure's own
part.
"""
MEASURES = {
    "update": update.measure,
    "own_part": update.own_part,
    "by_hand": update.by_hand,
    "broken": faults.broken,
    "killed": faults.killed,
    "versions": versions.measure,
}
ON_REAL = ("update", "by_hand", "killed", "versions")
ON_FAKE = ("update", "own_part", "by_hand", "broken", "killed")
BENCHMARK = Benchmark("rollout", __doc__, MEASURES, ON_FAKE, ON_REAL, ROLLED, FILE, HEAD)


if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
