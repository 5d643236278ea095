"""What Prometheus needs for a hundred replicas: to evaluate all rules once, and to keep the series.

The fleet is the fake one, whose replicas have the series of a real one. As far as rules look back, there is a past: a
month of what is recorded, hours of what is scraped.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from benchmarks import site
from benchmarks.monitoring import programs
from benchmarks.results import Row
from tests.ports import free_port
from tools.dashboards.prometheus import Prometheus
from tools.rules import source

REPLICAS = 100
LEARN_SECONDS, MEASURE_SECONDS = 200, 420  # until every name is there; until the slowest groups were evaluated
READ_SECONDS = 5
MOST_SECONDS = 1.0
MOST_SERIES = {programs.CLASSIC: 420, programs.NATIVE: 110}
FORMS = {programs.CLASSIC: "classic histograms", programs.NATIVE: "native histograms"}
_DEFAULTS = yaml.safe_load((source.ROOT / "roles" / "llm_monitoring" / "defaults" / "main.yml").read_text())
SCRAPE_SECONDS = int(_DEFAULTS["llm_monitoring_scrape_interval"])
_DURATION = re.compile(r'^prometheus_rule_group_last_duration_seconds\{rule_group="[^"]*;(\w+)"\} (\S+)$', re.MULTILINE)
_ASKED = (
    'max(scrape_samples_post_metric_relabeling{job="vllm"})',
    "prometheus_tsdb_head_series",
    'process_resident_memory_bytes{job="prometheus"}',
    "sum(prometheus_rule_group_iterations_missed_total)",
    "sum(prometheus_rule_evaluation_failures_total)",
    'rate(process_cpu_seconds_total{job="prometheus"}[5m])',
    'avg(avg_over_time(up{job="vllm"}[5m]))',
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Reading:
    """How long the last evaluation of each group took, at one moment."""

    groups: dict[str, float]

    @property
    def total(self) -> float:
        """Of all groups, as if all were due at once."""
        return sum(self.groups.values())


def classic(setting: site.Setting) -> list[Row]:
    """As the role installs it by default."""
    return _measured(programs.CLASSIC, setting.short)


def native(setting: site.Setting) -> list[Row]:
    """With native histograms, in a Prometheus 3."""
    return _measured(programs.NATIVE, setting.short)


def _measured(version: str, short: bool) -> list[Row]:
    site.say(f"{REPLICAS} replicas, {FORMS[version]}")
    with tempfile.TemporaryDirectory() as folder:
        place, port = pathlib.Path(folder), free_port()
        data = place / "data"
        with _fleet(place, port, version == programs.NATIVE) as config:
            began = time.time()
            with programs.prometheus(version, config, data, port) as url:
                time.sleep(60 if short else LEARN_SECONDS)
                past = list(_past(Prometheus(url), began))
            programs.backfill(data, past)
            with programs.prometheus(version, config, data, port) as url:
                readings = list(_readings(url, 60 if short else MEASURE_SECONDS))
                series, whole, memory, missed, failed, cpu, answered = (
                    Prometheus(url).instant(expression, time.time())[0].values[0][1] for expression in _ASKED
                )
    if answered < 0.95:
        raise RuntimeError(f"only {answered:.0%} of all scrapes were answered: this machine has too much else to do")
    readings.sort(key=lambda one: one.total)
    usual = readings[len(readings) // 2]
    slowest = max(usual.groups, key=lambda name: usual.groups[name])
    form = FORMS[version]
    return [
        Row(
            f"{form}: all {len(source.all_rules())} rules once, {REPLICAS} replicas in 5 pools",
            f"{usual.total:.2f} s (median of {len(readings)} readings; {readings[-1].total:.2f} s at most), of which "
            f"{slowest} {usual.groups[slowest]:.2f} s; {missed:.0f} evaluations missed, {failed:.0f} failed",
            f"<= {MOST_SECONDS:g} s",
            usual.total <= MOST_SECONDS and missed == failed == 0,
        ),
        Row(
            f"{form}: series of a replica",
            f"{series:.0f}",
            f"<= {MOST_SERIES[version]}",
            series <= MOST_SERIES[version],
        ),
        Row(f"{form}: Prometheus", f"{whole:,.0f} series, {memory / 2**20:.0f} MiB resident, {cpu:.0%} of a core"),
    ]


@contextlib.contextmanager
def _fleet(place: pathlib.Path, port: int, native: bool) -> Iterator[pathlib.Path]:
    """Serve the fleet, and give the configuration of the Prometheus that reads it."""
    serves = free_port()
    words = ["--port", str(serves), "--out", str(place), "--rules", str(source.TARGET), "--replicas", str(REPLICAS)]
    words += ["--prometheus", f"127.0.0.1:{port}", "--interval", str(SCRAPE_SECONDS), *(["--native"] if native else [])]
    process = subprocess.Popen([sys.executable, "-m", "tests.fakes.metrics", *words], cwd=source.ROOT)
    config = place / "prometheus.yml"
    try:
        while not config.exists():
            if process.poll() is not None:
                raise RuntimeError("the fake fleet ended")
            time.sleep(0.1)
        yield config
    finally:
        process.kill()
        process.wait()


def _readings(url: str, seconds: float) -> Iterator[Reading]:
    """Read how long evaluations took, again and again, once every group has been evaluated."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(READ_SECONDS)
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            told = _DURATION.findall(answer.read().decode())
        yield Reading({group: float(value) for group, value in told if value != "NaN"})


def reach() -> dict[str, tuple[float, float]]:
    """Return how many seconds rules look back at a series, by its name, and how far apart its samples are."""
    rules = source.all_rules()
    every = {rule.name: _seconds(rule.interval) for rule in rules if not rule.is_alert}
    found: dict[str, tuple[float, float]] = {}
    for rule in rules:
        expression = str(rule.body["expr"])
        back = [_seconds(span) for span in re.findall(r"(?:\[|offset )(\w+)", expression)]
        for name in source.series_names(expression):
            found[name] = (max([found.get(name, (0.0, 0.0))[0], *back]), every.get(name, SCRAPE_SECONDS))
    return found


def _seconds(text: str) -> float:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def _past(asked: Prometheus, until: float) -> Iterator[tuple[str, dict[str, str], list[tuple[float, float]]]]:
    """Yield what each series was before, as far as rules look back: the same as now; counters rose to it."""
    for name, (back, every) in sorted(reach().items()):
        if back <= MEASURE_SECONDS:  # it has lived through that
            continue
        times = [until - step * every for step in range(int(back / every), 0, -1)]
        shares = [(at - times[0]) / back if name.endswith("_total") else 1.0 for at in times]
        for series in asked.instant(name, time.time()):
            value = series.values[0][1]
            labels = {label: text for label, text in series.labels.items() if label != "__name__"}
            yield name, labels, [(at, value * share) for at, share in zip(times, shares)]
