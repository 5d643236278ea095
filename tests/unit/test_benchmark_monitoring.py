"""What the benchmark of monitoring computes by itself, and that what needs no hosts leaves them alone."""

from __future__ import annotations

import pathlib

import pytest

from benchmarks import command, site
from benchmarks.monitoring import __main__ as monitoring
from benchmarks.monitoring import rules, spend
from benchmarks.results import Row
from tests.traffic.fleet import FAKE

DAY, HOUR = 86400, 3600


def test_a_measure_that_needs_no_hosts_brings_none_up(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    ran = []

    def measure(setting: site.Setting) -> list[Row]:
        ran.append(setting.short)
        return [Row("a sum", "3", "3", True)]

    def refuse(*words: object) -> None:
        raise AssertionError("hosts were asked")

    for where, name in ((site, "bring_up"), (site, "form"), (site, "versions"), (command, "await_healthy")):
        monkeypatch.setattr(where, name, refuse)
    monkeypatch.setattr(command.faults, "clear", refuse)
    monkeypatch.setattr("sys.argv", ["monitoring", "sums"])
    file = tmp_path / "RESULTS.md"
    words = {"alone": ("sums",), "programs": lambda: "prometheus 2"}
    made = command.Benchmark("monitoring", "about", {"sums": measure}, (), (), FAKE, file, "# Head\n", **words)
    assert made.main() == 0
    assert ran == [False]
    assert "| sums | no hosts | a sum | 3 | 3 | yes |" in file.read_text()
    assert "prometheus 2" in file.read_text()


def test_every_measure_says_whether_it_needs_hosts() -> None:
    made = monitoring.BENCHMARK
    assert set(made.alone) | set(made.on_fake) | set(made.on_real) == set(made.measures) == set(monitoring.MEASURES)
    assert set(made.alone).isdisjoint({*made.on_fake, *made.on_real})


def test_rules_have_a_past_as_far_as_they_look_back() -> None:
    reach = rules.reach()
    assert reach["pool:llmops_errors:rate5m"] == (30 * DAY, 30)
    assert reach["llmops:day_index"] == (31 * DAY, 60)  # inside of a subquery
    assert reach["vllm:generation_tokens_total"] == (HOUR, 10)
    assert reach["vllm:num_requests_running"][0] == 0


def test_the_sum_is_exact() -> None:
    shares = [
        spend.Share("gpu1", "chat", 12.0, 0, 10 * DAY),
        spend.Share("gpu2", "chat", 6.0, 0, 90),
        spend.Share("gpu2", "chat", 8.0, 90, 10 * DAY),
    ]
    assert spend.exact(shares, 0, HOUR) == pytest.approx(12 + 6 * 90 / HOUR + 8 * (HOUR - 90) / HOUR)
    assert spend.exact(shares, 45, 135) == pytest.approx((12 * 90 + 6 * 45 + 8 * 45) / HOUR)
    assert spend.exact(shares, 10 * DAY, 11 * DAY) == 0


def test_a_share_that_has_ended_costs_nothing_from_then_on() -> None:
    shares = [spend.Share("gpu1", "chat", 6.0, 5, 50), spend.Share("gpu1", "chat", 8.0, 50, 95)]
    told = [(labels["instance"], samples) for _name, labels, samples in spend._scraped(shares, 0, 120)]
    costs = [(10, 6), (20, 6), (30, 6), (40, 6), (50, 8), (60, 8), (70, 8), (80, 8), (90, 8), (100, 0), (110, 0)]
    assert told == [("mon1", costs), ("mon2", costs)]
