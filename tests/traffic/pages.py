"""Who is woken: the messages of Alertmanager at the client host, and what Prometheus knows of the fleet."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.dashboards.prometheus import Prometheus
from tools.sandbox.environment import monitoring_url
from tools.sandbox.layout import PKI

from .fleet import CLIENT, await_that, sh

PORT = 9099  # of molecule/monitoring/inventory
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Page:
    """An alert in a message: when it came (seconds since 1970), where to, and what it says."""

    at: float
    path: str
    status: str
    labels: dict[str, str]

    @property
    def name(self) -> str:
        return self.labels["alertname"]


@dataclass
class Pager:
    """The receiver that runs on the client host; it takes messages of Alertmanager for pages, tickets, the watchdog."""

    place: str

    def came(self, since: float = 0.0, path: str = "/page") -> list[Page]:
        """Alerts that came since then, first and last notification alike."""
        rows = [json.loads(line) for line in sh(CLIENT, f"cat {self.place} 2>/dev/null; true").splitlines()]
        return [
            Page(row["at"], row["path"], row["status"], row["labels"])
            for row in rows
            if row["at"] >= since and row["path"] == path
        ]

    def await_page(self, name: str, since: float, seconds: float, path: str = "/page", **labels: str) -> Page:
        """Return the first message that this alert fires with these labels; AssertionError when none comes in time."""

        def found() -> Page | None:
            fits = [one for one in self.came(since, path) if one.name == name and one.status == "firing"]
            return next((one for one in fits if labels.items() <= one.labels.items()), None)

        page: Page = await_that(found, f"{name} {labels or ''} comes to {path}", seconds)
        return page

    def await_end(self, name: str, since: float, seconds: float, path: str = "/page") -> None:
        """Wait until it is told that this alert is over."""

        def over() -> bool:
            return any(one.name == name and one.status == "resolved" for one in self.came(since, path))

        await_that(over, f"{name} is over, as {path} is told", seconds)


@contextmanager
def pager(seconds: float = 7200) -> Iterator[Pager]:
    """Somebody is on call within the block, of so many seconds at most."""
    place = f"/root/pages-{int(time.time())}-{next(_numbers)}"
    run = f"cd /opt; exec python3 -m tests.load.webhook --port {PORT} --seconds {seconds:g} --out {place}"
    sh(CLIENT, f"( sh -c '{run}' > {place}.log 2>&1 & echo $! > {place}.pid )")
    try:
        await_that(lambda: sh(CLIENT, f"ss -Hltn 'sport = {PORT}'"), "the pager listens", 20)
        yield Pager(place)
    finally:
        sh(CLIENT, f"kill $(cat {place}.pid) 2>/dev/null; true")


def prometheus() -> Prometheus:
    """Prometheus on the monitoring host."""
    return Prometheus(monitoring_url(9090), str(PKI / "ca.crt"))


def value(expression: str) -> dict[tuple[tuple[str, str], ...], float]:
    """What an expression is worth now, by labels."""
    return {
        tuple(sorted(one.labels.items())): one.values[0][1] for one in prometheus().instant(expression, time.time())
    }


def firing(*but: str) -> set[str]:
    """Names of the alerts that fire now, apart from these."""
    found = {labels["alertname"] for labels in map(dict, value('ALERTS{alertstate="firing"}'))}
    return found - set(but)


def rules() -> list[dict[str, Any]]:
    """Every rule that Prometheus knows, with its file's groups flattened."""
    groups: list[dict[str, Any]] = prometheus().ask("rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]
