"""What the benchmark of the traffic tier computes by itself: its table, its arrivals, and that its measures exist."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import results
from benchmarks.results import Row
from benchmarks.traffic import __main__ as command
from benchmarks.traffic import stalls
from benchmarks.traffic.results import HEAD


def put(old: str, measure: str, *rows: Row, fleet: str = "fake, lua") -> str:
    return results.table(HEAD, old, measure, fleet, list(rows), "nginx 1", 0.5, 2, "2026-01-01")


def test_rows_of_a_measure_are_replaced_where_they_stood() -> None:
    text = put("", "drains", Row("a", "1 failed", "0", False))
    text = put(text, "slow", Row("b", "out"))
    text = put(text, "drains", Row("a", "0 failed", "0", True), Row("c", "x"))
    rows = [line for line in text.splitlines() if line.startswith(("| drains", "| slow"))]
    assert rows == [
        "| drains | fake, lua | a | 0 failed | 0 | yes | 0.5 | 2 | 2026-01-01 | nginx 1 |",
        "| drains | fake, lua | c | x |  |  | 0.5 | 2 | 2026-01-01 | nginx 1 |",
        "| slow | fake, lua | b | out |  |  | 0.5 | 2 | 2026-01-01 | nginx 1 |",
    ]


def test_the_same_measure_on_another_fleet_has_rows_of_its_own() -> None:
    text = put(put("", "drains", Row("a", "1")), "drains", Row("a", "2"), fleet="real, lua")
    assert text.count("| drains |") == 2
    assert "**no**" in put(text, "x", Row("a", "1", "2", False))


def test_bursty_arrivals_have_the_rate_asked_for_and_come_in_bursts() -> None:
    rows = stalls.bursty(600, 20)
    assert len(rows) == pytest.approx(12000, rel=0.05)
    high = sum(int(float(row["at"]) / 5) % 2 == 0 for row in rows)
    assert high / len(rows) == pytest.approx(0.625, abs=0.02)
    assert rows == stalls.bursty(600, 20)


def test_every_measure_is_a_choice_and_an_unknown_one_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.traffic", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert [name for name in command.MEASURES if name not in done.stderr] == []
