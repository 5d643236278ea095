"""What the fleet has cost, as the recording rules and the cost report tell it, against the exact sum.

The fleet is one whose prices change at odd seconds, as replicas come and go, since yesterday's midnight. Prometheus
has read them every ten seconds from two monitoring hosts, was away for four minutes, and has evaluated the rules as
they are committed, each minute: in the past through promtool, now by itself.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import site
from benchmarks.monitoring import programs
from benchmarks.playing import play
from benchmarks.results import Row
from tests.fakes.served import Served
from tools.dashboards.prometheus import Prometheus
from tools.rules import source

DAY, HOUR, SCRAPE_SECONDS = 86400, 3600, 10
MONITORS = ("mon1", "mon2")
MOST_OFF = 0.01
TODAY = "llmops:spend_usd:sum_today"
# What the rule above leans on, in the order in which it can be evaluated over the past.
PASSES = (("pool:llmops_cost_usd_per_hour:sum", "llmops:day_index"), ("llmops:cost_usd_per_hour:sum",))
PRICE = "llmops_replica_price_usd_per_hour"


@dataclass(frozen=True)
class Share:
    """What costs so much an hour, from one second to before another."""

    host: str
    pool: str
    usd: float
    begins: float
    ends: float

    @property
    def labels(self) -> dict[str, str]:
        """Its labels in the textfile; a host that carries no replica has none of a replica."""
        replica = {} if self.pool == "none" else {"replica": f"{self.host}/r0"}
        return {"host": self.host, "pool": self.pool, "commitment": "reserved", **replica}


def fleet(midnight: float, now: float) -> list[Share]:
    """What the fleet costs from a midnight on; some of it changes on the last day, however long that is yet."""
    today = midnight + DAY
    rose, left = midnight + 9.31 * HOUR, today + 0.37 * (now - today)
    came = midnight + 13.77 * HOUR
    for_ever = now + DAY
    return [
        Share("gpu1", "chat", 12.0, midnight, for_ever),
        Share("gpu2", "chat", 12.0, midnight, rose),
        Share("gpu2", "chat", 17.5, rose, for_ever),
        Share("gpu3", "long", 39.9, came, left),
        Share("gpu4", "long", 21.3, left, for_ever),
        Share("gpu5", "none", 3.3, midnight, left),
    ]


def exact(shares: list[Share], start: float, end: float) -> float:
    """Return what they have cost from one second to another."""
    return sum(one.usd * max(0.0, min(one.ends, end) - max(one.begins, start)) / HOUR for one in shares)


def measure(_setting: site.Setting) -> list[Row]:
    """The rule of today now, and at each hour of yesterday; the report of both days."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        place = pathlib.Path(folder)
        began = time.time()
        midnight = began // DAY * DAY - DAY
        shares = fleet(midnight, began)
        config = stack.enter_context(_serving(place, shares))
        data = place / "data"
        programs.backfill(data, _scraped(shares, midnight, began))
        empty = place / "empty.yml"
        empty.write_text("global: {}\n")
        for names in PASSES:
            with programs.prometheus(programs.CLASSIC, empty, data) as url:
                programs.record(data, url, _rules(place / "rules.yml", names), midnight, began)
        url = stack.enter_context(programs.prometheus(programs.CLASSIC, config, data))
        asked = Prometheus(url)
        told, at = _twice_recorded(asked)
        today = midnight + DAY
        rows = [_row(f"{TODAY}, {(at - today) / HOUR:.1f} h after midnight", told, exact(shares, today, at))]
        rows.append(_yesterday(asked, shares, midnight))
        for day, start, end in (("yesterday", midnight, today), ("today so far", today, at // 60 * 60)):
            usd = _reported(url, place / "report.json", start, end)
            rows.append(_row(f"cost_report.yml, {day}", usd, exact(shares, start, end)))
        return rows


def _reported(url: str, file: pathlib.Path, start: float, end: float) -> float:
    """Return what the playbook says the fleet has cost from one whole minute to another."""
    span = [time.strftime("%Y-%m-%dT%H:%M", time.gmtime(at)) for at in (start, end)]
    asked = {"llmops_prometheus_url": url, "llmops_report_file": str(file)}
    asked |= {"llmops_report_from": span[0], "llmops_report_to": span[1]}
    play("llmops.vllm.cost_report", "-i", "localhost,", "-e", json.dumps(asked))
    return float(json.loads(file.read_text())["total"]["usd"])


def _row(what: str, told: float, wanted: float) -> Row:
    off = abs(told / wanted - 1)
    return Row(what, f"{told:.2f} of {wanted:.2f} USD: {off:.2%} off", f"<= {MOST_OFF:.0%} off", off <= MOST_OFF)


def _yesterday(asked: Prometheus, shares: list[Share], midnight: float) -> Row:
    """The rule as it stood at each hour of a whole day, at a second that is no whole minute; it counts minutes."""
    (rule,) = (one for one in source.rules("cost") if one.name == TODAY)
    off = {}
    for hour in range(1, 25):
        at = midnight + hour * HOUR - 17
        (told,) = asked.instant(str(rule.body["expr"]), at)
        off[hour] = abs(told.values[0][1] / exact(shares, midnight, at) - 1)
    first = off.pop(1)
    worst = max(off, key=lambda hour: off[hour])
    result = (
        f"{off[worst]:.2%} off after {worst} h, {off[24]:.2%} at its end; {first:.2%} after 1 h, not a minute's cost"
    )
    what = f"{TODAY}, at each hour of a day from the second on, worst"
    return Row(what, result, f"<= {MOST_OFF:.0%} off", off[worst] <= MOST_OFF)


def _twice_recorded(asked: Prometheus) -> tuple[float, float]:
    """Return what Prometheus itself recorded, once it has evaluated the rule twice, and when that was."""
    times: set[float] = set()
    while True:
        for series in asked.instant(f"timestamp({TODAY})", time.time()):
            times.add(series.values[0][1])
        if len(times) == 2:
            at = max(times)
            return asked.instant(TODAY, at)[0].values[0][1], at
        time.sleep(1)


def _scraped(shares: list[Share], start: float, end: float) -> Iterator[tuple[str, dict[str, str], Any]]:
    """Yield what both monitoring hosts told at each scrape; for four minutes nobody asked.

    Where a series ends, Prometheus marks it as gone, which promtool cannot write: it costs nothing from then on.
    """
    away = range(int(start + 17.2 * HOUR), int(start + 17.2 * HOUR) + 240)
    times = [at for at in range(int(start), int(end), SCRAPE_SECONDS) if at not in away]
    for labels in {tuple(one.labels.items()): one.labels for one in shares}.values():
        own = [one for one in shares if one.labels == labels]
        began = min(one.begins for one in own)
        costs = [(at, sum(one.usd for one in own if one.begins <= at < one.ends)) for at in times if at >= began]
        for monitor in MONITORS:
            yield PRICE, {**labels, "instance": monitor, "job": "node"}, costs


def _rules(file: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path:
    """Write some rules of the committed file into one of their own; its name and path say when they are due."""
    rules = [dict(one.body) for one in source.rules("cost") if one.name in names]
    file.write_text(source.dumped({"groups": [{"name": "llmops_cost", "interval": "1m", "rules": rules}]}))
    return file


@contextlib.contextmanager
def _serving(place: pathlib.Path, shares: list[Share]) -> Iterator[pathlib.Path]:
    """Serve the prices of now, and give the configuration of a Prometheus that reads them, with the rules of cost."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = [one for one in shares if one.begins <= time.time() < one.ends]
            lines = []
            for one in now:
                labels = ",".join(f'{label}="{value}"' for label, value in one.labels.items())
                lines.append(f"{PRICE}{{{labels}}} {one.usd}\n")
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write("".join(lines).encode())

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    with Served(Handler) as served:
        address = f"127.0.0.1:{served.port}"
        targets = [{"targets": [address], "labels": {"instance": monitor}} for monitor in MONITORS]
        job = {"job_name": "node", "honor_labels": True, "static_configs": targets}
        rules = [str(source.TARGET / "llmops_cost.yml")]
        config = {"global": {"scrape_interval": f"{SCRAPE_SECONDS}s"}, "rule_files": rules, "scrape_configs": [job]}
        file = place / "prometheus.yml"
        file.write_text(source.dumped(config))
        yield file
