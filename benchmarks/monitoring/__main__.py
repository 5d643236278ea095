"""``python -m benchmarks.monitoring MEASURE ...|all``: what monitoring promises, measured; rows go to RESULTS.md.

Measures that need hosts need a machine that may run the sandbox's containers (see ``make demo``), and begin with fresh
ones, unless ``--keep`` is given. The others need Debian's packages of Prometheus, which they fetch.
"""

from __future__ import annotations

import pathlib
import sys

from benchmarks import command
from benchmarks.monitoring import pages, programs, rules, spend, steady
from tests.traffic.fleet import WATCHED_FAKE, WATCHED_REAL

FILE = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
HEAD = """# What monitoring does

Made by `python -m benchmarks.monitoring MEASURE ...`, which replaces the rows of what it measures. On `no hosts`, a
real Prometheus on this machine reads a fake fleet; otherwise all hosts are containers on one machine, and who is woken
is a file on one of them. `load` is the load average of the machine when the measure ended, with the measure's own part.
"""
MEASURES = {
    "rules": rules.classic,
    "rules_native": rules.native,
    "spend": spend.measure,
    "pages": pages.every,
    "times": pages.times,
    "target": steady.target,
    "series": steady.series,
    "hour": steady.hour,
}
BENCHMARK = command.Benchmark(
    name="monitoring",
    about=__doc__,
    measures=MEASURES,
    on_fake=("pages", "times", "target", "hour"),
    on_real=("times", "target", "series", "hour"),
    fake=WATCHED_FAKE,
    real=WATCHED_REAL,
    file=FILE,
    head=HEAD,
    alone=("rules", "rules_native", "spend"),
    programs=programs.versions,
)


if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
