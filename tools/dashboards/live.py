"""``python -m tools.dashboards.live``: does every panel of every dashboard return data?

Variables are resolved as Grafana does, with All chosen. A panel is alive when each of its queries returns a value: now,
if it shows what is now, else at any time in the range. One that needs an exporter that is not there (``needs`` in its
table) is told as absent and does not count as dead. Ends with 1 when a panel or a variable is dead.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import build
from .panels import NOW
from .prometheus import Prometheus, PrometheusError, add_options
from .source import NAMES, Panel, dashboard
from .variables import Span, fill, resolve, seconds

STEPS = 60
PAUSE = 5.0  # seconds until dead panels are asked again


@dataclass(frozen=True)
class Finding:
    """What became of one panel."""

    dashboard: str
    panel: str
    state: str  # alive, dead or absent
    series: int = 0
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state:7} {self.dashboard:9} {self.panel:42.42} {self.series:5}  {self.why}".rstrip()


def findings(name: str, asked: Prometheus, span: Span) -> Iterator[Finding]:
    """Yield what becomes of each panel of a dashboard; only of its variables, if one of them is dead."""
    table = dashboard(name)
    try:
        texts = resolve(build.made(table)["templating"]["list"], {}, asked, span)
    except (LookupError, PrometheusError) as error:
        yield Finding(name, "(variables)", "dead", why=str(error))
        return
    for panel in table.panels:
        yield _finding(name, panel, asked, span, texts)


def _finding(name: str, panel: Panel, asked: Prometheus, span: Span, texts: dict[str, str]) -> Finding:
    found, dead = 0, []
    for query in panel.queries:
        expr = fill(query.expr, texts)
        try:
            now = panel.kind in NOW
            series = asked.instant(expr, span.end) if now else asked.range(expr, span.start, span.end, span.step)
        except PrometheusError as error:
            return Finding(name, panel.title, "dead", why=str(error))
        told = [one for one in series if any(not math.isnan(value) for _time, value in one.values)]
        found += len(told)
        if not told:
            dead.append(expr)
    if not dead:
        return Finding(name, panel.title, "alive", found)
    if panel.needs and not asked.range(panel.needs, span.start, span.end, span.step):
        return Finding(name, panel.title, "absent", found, f"there is no {panel.needs}")
    return Finding(name, panel.title, "dead", found, "no data: " + "; ".join(dead))


def check(names: Sequence[str], options: argparse.Namespace) -> list[Finding]:
    """Return what is found of each panel now."""
    length, now = seconds(options.range), time.time()
    span = Span(now - length, now, max(1.0, length / STEPS), seconds(options.scrape_interval))
    return [one for name in names for one in findings(name, Prometheus(options.prometheus, options.ca), span)]


def main() -> int:
    """Print what was found of each panel."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.dashboards.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--dashboard", choices=NAMES, help="only this one")
    parser.add_argument("--range", default="15m", help="how far back to look, such as 15m (default)")
    parser.add_argument("--wait", default="0s", help="how long to ask again while a panel is dead, such as 6m")
    parser.add_argument("--scrape-interval", default="10s", help="how often Prometheus scrapes (default 10s)")
    options = parser.parse_args()
    names = [name for name in NAMES if options.dashboard in (None, name)]
    until = time.monotonic() + seconds(options.wait)
    found = check(names, options)
    while any(one.state == "dead" for one in found) and time.monotonic() < until:
        time.sleep(PAUSE)
        found = check(names, options)
    print("\n".join(map(str, found)))
    counts = {state: sum(one.state == state for one in found) for state in ("alive", "absent", "dead")}
    print(f"{len(found)} panels: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    return int(counts["dead"] > 0)


if __name__ == "__main__":
    sys.exit(main())
