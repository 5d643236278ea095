"""``python -m benchmarks.traffic MEASURE ...|all``: what the traffic tier promises, measured; rows go to RESULTS.md.

Needs a machine that may run the sandbox's containers (see ``make demo``). Without ``--keep`` it begins with fresh
hosts; they stay up afterwards, and `make demo-down` removes them.
"""

from __future__ import annotations

import sys

from benchmarks.command import Benchmark
from benchmarks.traffic import agent200, changes, costs, drains, faulted, holder, pool, stalls, ttft
from benchmarks.traffic.results import FILE, HEAD
from tests.traffic.fleet import FAKE

MEASURES = {
    "drains": drains.measure,
    "changes": changes.measure,
    "dead": faulted.dead,
    "frozen": faulted.frozen,
    "slow": faulted.slow,
    "pool": pool.measure,
    "stalls": stalls.measure,
    "holder": holder.measure,
    "ttft": ttft.measure,
    "costs": costs.measure,
    "agent200": agent200.measure,
}
ON_REAL = ("drains", "dead", "frozen", "holder")
BENCHMARK = Benchmark("traffic", __doc__, MEASURES, tuple(MEASURES), ON_REAL, FAKE, FILE, HEAD)


if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
