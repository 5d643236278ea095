"""``python -m benchmarks.monitoring MEASURE ...|all``: what monitoring promises, measured; rows go to RESULTS.md.

Measures that need hosts need a machine that may run the sandbox's containers (see ``make demo``), and begin with fresh
ones, unless ``--keep`` is given. The others need Debian's packages of Prometheus, which they fetch.
"""

from __future__ import annotations

import pathlib
import sys
from dataclasses import dataclass

from benchmarks import command
from benchmarks.monitoring import programs, rules, spend
from tests.traffic.fleet import FAKE

FILE = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
HEAD = """# What monitoring does

Made by `python -m benchmarks.monitoring MEASURE ...`, which replaces the rows of what it measures. On `no hosts`, a
real Prometheus on this machine reads a fake fleet. `load` is the load average of the machine when the measure ended,
with the measure's own part.
"""


@dataclass(frozen=True)
class Measure:
    """What measures, and whether it needs the sandbox's hosts."""

    measure: command.Measure
    hosts: bool


MEASURES = {
    "rules": Measure(rules.measure, hosts=False),
    "spend": Measure(spend.measure, hosts=False),
}
ON_HOSTS = tuple(name for name, one in MEASURES.items() if one.hosts)
BENCHMARK = command.Benchmark(
    name="monitoring",
    about=__doc__,
    measures={name: one.measure for name, one in MEASURES.items()},
    on_fake=ON_HOSTS,
    on_real=ON_HOSTS,
    fake=FAKE,
    file=FILE,
    head=HEAD,
    alone=tuple(name for name, one in MEASURES.items() if not one.hosts),
    programs=programs.versions,
)


if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
