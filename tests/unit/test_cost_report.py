"""The cost report: its figures against a month in a real Prometheus, its period, its gaps, its table, its refusals."""

from __future__ import annotations

import datetime
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._cost import period as cost_period
from ansible_collections.llmops.vllm.plugins.module_utils._cost import report as cost_report
from ansible_collections.llmops.vllm.plugins.module_utils._cost import table as cost_table
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.json_api import JsonApi
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.prometheus import Prometheus

from tests.debian_programs import answers, program, serving
from tests.fakes import prometheus as fake
from tests.fakes.web import Web
from tests.ports import free_port

DAY, HOUR, MINUTE = 86400, 3600, 60
NOW = datetime.datetime(2026, 12, 5, 13, 37, 42, tzinfo=datetime.timezone.utc)
# A month that ended at the last midnight. Samples come every four minutes, which Prometheus bridges.
END = int(time.time()) // DAY * DAY
BEGIN = END - 30 * DAY
EVERY = 4 * MINUTE
# Nothing at all was recorded for three hours around a midnight, and one replica was not scraped for two hours.
LOST = range(BEGIN + 9 * DAY + 23 * HOUR, BEGIN + 10 * DAY + 2 * HOUR)
UNSEEN = range(BEGIN + 20 * DAY + 6 * HOUR, BEGIN + 20 * DAY + 8 * HOUR)
DEARER = BEGIN + 15 * DAY  # from here on gpu2 costs 20 instead of 10 USD an hour
# What the rules record, as tools/rules/cost.yml has it.
PRICES = "sum by (pool) (max by (host, replica, pool, commitment) (llmops_replica_price_usd_per_hour))"
SPEND_24H = f"sum_over_time(sum({PRICES})[24h:1m]) / 60"
USD_RATE = (
    f"{PRICES} / on (pool) "
    "(sum by (pool) (rate(vllm:generation_tokens_total[1h]) + rate(vllm:prompt_tokens_total[1h])) * 3600 / 1e6)"
)

Run = Callable[..., Any]


def month() -> Iterator[tuple[str, str, Callable[[int], float | None]]]:
    """Series as name, labels and their value at a time. The counters of gpu1 began anew in the middle."""
    for host, pool, gpus, price, per_second in (
        ("gpu1", "chat", 2, 10, 50),
        ("gpu2", "chat", 2, 10, 50),
        ("gpu3", "long", 8, 40, 25),
    ):
        labels = f'host="{host}",replica="{host}/r0",pool="{pool}"'

        def seen(value: Callable[[int], float], host: str = host) -> Callable[[int], float | None]:
            return lambda when: None if when in LOST or (host == "gpu2" and when in UNSEEN) else value(when)

        def priced(when: int, host: str = host, price: float = price) -> float | None:
            return None if when in LOST else 20 if host == "gpu2" and when >= DEARER else price

        def counted(when: int, host: str = host, rate: float = per_second) -> float:
            return rate * (when - (DEARER if host == "gpu1" and when >= DEARER else BEGIN - DAY))

        yield "llmops_replica_price_usd_per_hour", f'{labels},instance="mon1"', priced
        yield "llmops_replica_price_usd_per_hour", f'{labels},instance="mon2"', priced  # a second monitoring host
        yield "llmops_replica_gpus", labels, lambda when, gpus=gpus: None if when in LOST else gpus
        yield "up", f'{labels},job="vllm"', seen(lambda when: 1)
        yield "vllm:generation_tokens_total", labels, seen(counted)
        yield "vllm:prompt_tokens_total", labels, seen(lambda when, counted=counted: 3 * counted(when))
    yield "llmops_budget_daily_usd", "", lambda when: 1500
    yield "llmops_budget_monthly_usd", "", lambda when: 45000
    yield "llmops_target_usd_per_million_tokens", 'pool="chat"', lambda when: 1.5


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prometheus that has the month."""
    base = tmp_path_factory.mktemp("prometheus")
    with (base / "month.om").open("w") as text:
        told = ""
        for name, labels, value in sorted(month(), key=lambda series: series[0]):
            kind = "counter" if name.endswith("_total") else "gauge"
            if name != told:
                text.write(f"# TYPE {name.removesuffix('_total')} {kind}\n")
            told = name
            for when in range(BEGIN - HOUR, END + HOUR, EVERY):
                number = value(when)
                if number is not None:
                    text.write(f"{name}{{{labels}}} {number} {when}\n")
        text.write("# EOF\n")
    tool = program("prometheus", "promtool")
    made = [
        tool,
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--max-block-duration=768h",
        str(base / "month.om"),
        str(base / "data"),
    ]
    subprocess.run(made, check=True, capture_output=True)
    (base / "prometheus.yml").write_text("global: {}\n")
    port = free_port()
    command = [program("prometheus", "prometheus"), f"--config.file={base}/prometheus.yml"]
    command += [f"--storage.tsdb.path={base}/data", "--storage.tsdb.retention.time=1y"]
    url = f"http://127.0.0.1:{port}"
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with serving(command, lambda: answers(f"{url}/-/ready"), base / "log", 60):
        yield url


def reported(url: str, start: int = BEGIN, end: int = END) -> dict[str, Any]:
    return cost_report.report(Prometheus(JsonApi(url)), cost_period.Period(start, end))


@pytest.fixture(scope="module")
def whole(real: str) -> dict[str, Any]:
    """The report of the month."""
    return reported(real)


def test_a_month_is_what_it_was(whole: dict[str, Any]) -> None:
    chat, long = whole["pools"]
    gap = whole["gaps"][0]
    assert (gap["what"], gap["to"]) == ("prices", cost_period.stamp(LOST.stop))
    lost = round(gap["hours"] * 60) / 60  # the last sample holds for five minutes
    assert 2.9 <= lost <= 3.0
    assert chat["usd"] == pytest.approx(10 * (720 - lost) + 10 * (360 - lost) + 20 * 360, abs=1e-4)
    assert long["usd"] == pytest.approx(40 * (720 - lost), abs=1e-4)
    assert gap["usd_missing"] == pytest.approx(60 * lost, abs=0.01)
    assert (chat["gpu_hours"], long["gpu_hours"]) == (pytest.approx(4 * (720 - lost)), pytest.approx(8 * (720 - lost)))
    # counters went on while nothing was recorded: what they counted then is not lost, and no day is cut out of it
    assert long["tokens_out"] == pytest.approx(25 * 30 * DAY, rel=1e-4)
    assert chat["tokens_out"] == pytest.approx(2 * 50 * 30 * DAY, rel=1e-3)
    assert chat["tokens_in"] == pytest.approx(3 * chat["tokens_out"], rel=1e-6)
    assert chat["usd_per_million_tokens"] == pytest.approx(chat["usd"] / (4 * chat["tokens_out"]) * 1e6, rel=1e-4)
    total = whole["total"]
    assert total["usd"] == pytest.approx(chat["usd"] + long["usd"], abs=1e-4)
    assert math.fsum(day["usd"] for day in whole["by_day"]) == pytest.approx(total["usd"], rel=1e-6)
    assert len(whole["by_day"]) == 30


def test_what_one_replica_lacks_is_named(whole: dict[str, Any]) -> None:
    tokens = [gap for gap in whole["gaps"] if gap["what"] == "tokens"]
    assert [(gap["pool"], gap["replicas"], gap["to"]) for gap in tokens] == [
        ("chat", 1, cost_period.stamp(UNSEEN.stop))
    ]
    assert 1.9 <= tokens[0]["hours"] <= 2.0
    assert "1 replica(s) of pool chat were not scraped from " in tokens[0]["text"]


def test_plan_of_the_month(whole: dict[str, Any]) -> None:
    plan = whole["plan"]
    assert (plan["daily_budget_usd"], plan["daily_budget_of_period_usd"]) == (1500, 45000)
    # 60 USD an hour are 1440 a day, 70 are 1680
    assert plan["days_over_daily_budget"] == [cost_period.stamp(DEARER + n * DAY)[:10] for n in range(15)]
    assert plan["monthly_budget_of_period_usd"] == pytest.approx(45000, rel=0.04)
    assert [row["target_usd_per_million_tokens"] for row in whole["pools"]] == [1.5, None]


def test_it_agrees_with_the_recording_rules(real: str) -> None:
    """Their expressions as they stand; that of spend has one point more, at the end of its range."""
    asked = Prometheus(JsonApi(real))
    end = BEGIN + 5 * DAY
    day, hour = reported(real, end - DAY, end), reported(real, end - HOUR, end)
    spend = next(iter(asked.at(SPEND_24H, end).values()))
    assert day["total"]["usd"] == pytest.approx(60 * 24) == pytest.approx(spend, rel=1e-3)
    rates = {dict(labels)["pool"]: value for labels, value in asked.at(USD_RATE, end).items()}
    mine = {row["pool"]: row["usd_per_million_tokens"] for row in hour["pools"]}
    assert mine == {pool: pytest.approx(value, abs=1e-3) for pool, value in rates.items()}


def test_a_part_of_a_day(real: str) -> None:
    found = reported(real, BEGIN + 3 * DAY + 22 * HOUR, BEGIN + 4 * DAY + 30 * MINUTE)
    assert [(day["hours"], day["usd"]) for day in found["by_day"]] == [(2, 120), (0.5, 30)]
    assert found["total"]["gpu_hours"] == pytest.approx(12 * 2.5)
    assert found["gaps"] == []


def test_before_anything_was_recorded(real: str) -> None:
    with pytest.raises(cost_report.CostError, match=r"no llmops_replica_price_usd_per_hour from .*set llmops_price"):
        reported(real, BEGIN - 10 * DAY, BEGIN - 5 * DAY)


@pytest.mark.parametrize(
    ("start", "end", "days", "expected"),
    [
        ("", "", 30, ("2026-11-05", "2026-12-05")),
        ("", "", 1, ("2026-12-04", "2026-12-05")),
        ("", "2026-12-01", 7, ("2026-11-24", "2026-12-01")),
        ("2026-11-01", "2026-12-01", 30, ("2026-11-01", "2026-12-01")),
        ("2026-12-01", "", 30, ("2026-12-01", "2026-12-05 13:37")),
        ("2026-12-01", "2027-01-01", 30, ("2026-12-01", "2026-12-05 13:37")),
        ("2026-11-01T08:00", "2026-11-01 09:30", 30, ("2026-11-01 08:00", "2026-11-01 09:30")),
        ("2026-11-01T08:00:59Z", "2026-11-02T00:00:00Z", 30, ("2026-11-01 08:00", "2026-11-02")),
    ],
)
def test_period(start: str, end: str, days: int, expected: tuple[str, str]) -> None:
    found = cost_period.period(start, end, days, NOW)
    assert (cost_period.words(found.start), cost_period.words(found.end)) == expected


@pytest.mark.parametrize(
    ("start", "end", "days", "expected"),
    [
        ("November", "", 30, "from is 'November': give a day such as 2026-11-01, or a time"),
        ("2026-11-01", "2026-11-31", 30, "to is '2026-11-31': give a day"),
        ("", "", 0, "days is 0: 1 to 366"),
        ("", "", 367, "days is 367: 1 to 366"),
        ("2027-01-01", "", 30, "from is 2027-01-01, which is not in the past"),
        ("2026-11-02", "2026-11-02", 30, "to is 2026-11-02, and from is 2026-11-02: to must be later"),
        ("2020-01-01", "2026-01-01", 30, "is more than 366 days"),
    ],
)  # fmt: skip
def test_period_that_cannot_be_meant(start: str, end: str, days: int, expected: str) -> None:
    with pytest.raises(cost_period.PeriodError) as told:
        cost_period.period(start, end, days, NOW)
    assert expected in str(told.value)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-11-01", "2026-12-01", [1]),
        ("2026-10-17", "2026-11-16", [15 / 31, 0.5]),
        ("2025-12-31", "2026-01-02", [1 / 31, 1 / 31]),
    ],
)
def test_shares_of_months(start: str, end: str, expected: list[float]) -> None:
    assert list(cost_period.period(start, end, 30, NOW).months()) == pytest.approx(expected)


def test_the_module_and_its_table(run_module: Run) -> None:
    with Web(fake.Prometheus(), login=("ops", "correct horse")) as web:
        args = {"url": web.url, "from": "2026-11-01", "to": "2026-11-03", "username": "ops"}
        refused = run_module("cost_report", args)
        assert refused.failed and "HTTP 401" in refused["msg"]
        found = run_module("cost_report", {**args, "password": "correct horse"}, check=True)
    assert not found["changed"]
    assert found["lines"] == [
        "Cost from 2026-11-01 to 2026-11-03 UTC (2 days)",
        "pool  GPU hours     USD  tokens in  tokens out  USD/M tokens  USD/M out  target",
        "chat       96.0  576.00  6,000,000   2,000,000         72.00     288.00   80.00",
        "sum        96.0  576.00  6,000,000   2,000,000         72.00     288.00       -",
        "Budget of 100.00 USD a day: 576.00 of 200.00 USD (288.0%)",
        "Days over the daily budget: 2026-11-01, 2026-11-02",
    ]


def test_gaps_and_warnings_are_in_the_table() -> None:
    first = int(datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc).timestamp())
    silent = fake.Prometheus({**fake.VALUES, "llmops_target_usd_per_million_tokens": 2}, range(first, first + HOUR))

    def warned(method: str, path: str, sent: Any) -> Any:
        status, told = silent(method, path, sent)
        return status, {**told, "warnings": ["a store is away"]}

    with Web(warned) as web:
        found = cost_table.lines(reported(web.url, first, first + DAY))
    assert found[2].endswith("2.00 over")
    assert found[-2:] == [
        "Missing: no prices from 2026-11-01 to 2026-11-01 01:00 (1.0 h): about 12.00 USD are missing in the sums, at "
        "the price at its edge",
        "a store is away",
    ]


def test_a_pool_without_tokens_has_no_price_per_token() -> None:
    with Web(fake.Prometheus({"llmops_replica_price_usd_per_hour": 12.0})) as web:
        found = reported(web.url)
    assert found["pools"][0]["usd_per_million_tokens"] is None
    assert (found["plan"]["daily_budget_usd"], found["plan"]["days_over_daily_budget"]) == (None, [])
    assert cost_table.lines(found)[2].split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, b"<html>"), "answered no JSON: <html>"),
        ((200, [1]), "answered no matrix of values: is it a Prometheus?"),
        ((200, {"status": "success", "data": {"resultType": "vector", "result": []}}), "answered no matrix of values"),
        ((422, {"status": "error", "error": "query processing would load too many samples"}), "HTTP 422: query proc"),
        ((302, b""), "HTTP 302"),
    ],
)
def test_an_answer_that_cannot_be_used(run_module: Run, answer: Any, expected: str) -> None:
    with Web(lambda method, path, sent: answer) as web:
        found = run_module("cost_report", {"url": web.url})
    assert found.failed and f"POST {web.url}/api/v1/query_range: {expected}" in found["msg"]
