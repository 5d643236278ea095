"""A table of gates at the end of a run: what was checked, in how many seconds, with which result.

A gate is a test below tests/gates or tests/scenarios, each of which runs a tool; other tests are one gate per file.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field

import pytest

NAMED = ("tests/gates/", "tests/scenarios/")


def gate_of(nodeid: str) -> str:
    """Return the gate's name: of ``tests/gates/test_lint.py::test_x[mypy]`` it is ``lint: x [mypy]``."""
    path, _colons, test = nodeid.partition("::")
    if not path.startswith(NAMED):
        return path
    name, bracket, variant = test.removeprefix("test_").partition("[")
    return f"{pathlib.Path(path).stem.removeprefix('test_')}: {name.replace('_', ' ')} {bracket}{variant}".rstrip()


@dataclass
class Gate:
    """What is known of one gate."""

    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def result(self) -> str:
        """Return it in words: a gate that did not run is not one that passed."""
        words = [f"{number} {outcome}" for outcome, number in sorted(self.counts.items())]
        return ", ".join(words) + "".join(f"; not run: {reason}" for reason in dict.fromkeys(self.reasons))


class GateTable:
    """The plugin: collects reports, prints the table above pytest's closing line."""

    def __init__(self, target: str | None) -> None:
        self.target = target
        self.gates: dict[str, Gate] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        gate = self.gates.setdefault(gate_of(report.nodeid), Gate())
        gate.seconds += report.duration
        if report.when == "call" or report.outcome != "passed":
            gate.counts[report.outcome] = gate.counts.get(report.outcome, 0) + 1
        if report.skipped and isinstance(report.longrepr, tuple):
            gate.reasons.append(" ".join(report.longrepr[2].removeprefix("Skipped: ").split()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.gates:
            return
        width = max(len(name) for name in self.gates)
        terminalreporter.section("gates")
        terminalreporter.write_line(f"{'gate':<{width}} {'seconds':>8}  result")
        for name, gate in self.gates.items():
            terminalreporter.write_line(f"{name:<{width}} {gate.seconds:>8.1f}  {gate.result()}")
        if self.target:
            with pathlib.Path(self.target).open("a") as page:
                page.write(self.markdown())

    def markdown(self) -> str:
        """Return the table for a page of the repository."""
        rows = [f"| {name} | {gate.seconds:.1f} | {gate.result()} |" for name, gate in self.gates.items()]
        return "\n".join(["| Gate | Seconds | Result |", "|---|---|---|", *rows, "", ""])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", metavar="FILE", help="add the table of gates to a Markdown file, too")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(GateTable(config.getoption("--table")))
