"""Draws dashboards from a live Prometheus into pictures: a preview of our JSON, not Grafana."""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from .. import build
from ..prometheus import Prometheus, PrometheusError, add_options
from ..source import NAMES, dashboard
from ..variables import Span, resolve, seconds
from . import browser, data, page, shrink

POINTS = 150  # of a line


def draw(
    name: str, asked: Prometheus, span: Span, chosen: dict[str, Sequence[str]], program: str, folder: pathlib.Path
) -> pathlib.Path:
    """Write the picture of one dashboard, and return its path."""
    made = build.made(dashboard(name))
    texts = resolve(made["templating"]["list"], chosen, asked, span)
    regions = data.regions(made, asked, span, texts)
    panels = {
        panel["id"]: data.shown(panel, asked, span, texts, regions)
        for panel in made["panels"]
        if panel["type"] != "row"
    }
    text, height = page.page(made, panels, {variable: " + ".join(values) for variable, values in chosen.items()})
    target = folder / f"{made['uid']}.png"
    browser.picture(program, text, page.WIDTH, height, target)
    shrink.shrink(target)
    return target


def main() -> int:
    """Draw the dashboards that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards.preview", description=__doc__)
    add_options(parser)
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--dashboard", choices=NAMES, action="append", help="only this one; may be given again")
    parser.add_argument("--range", default="30m", help="how far back to look, such as 15m (default 30m)")
    parser.add_argument("--end", type=float, help="the last moment, in seconds since 1970 (default: now)")
    parser.add_argument("--scrape-interval", default="10s", help="how often Prometheus scrapes (default 10s)")
    parser.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="default: all values")
    parser.add_argument("--browser", help="a Chromium (default: the one that is installed)")
    options = parser.parse_args()
    chosen: dict[str, Sequence[str]] = {}
    for word in options.variable:
        name, _equals, value = word.partition("=")
        chosen[name] = [*chosen.get(name, []), value]
    length = seconds(options.range)
    step = max(1.0, round(length / POINTS))
    end = (options.end or time.time()) // step * step
    span = Span(end - length, end, step, seconds(options.scrape_interval))
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        program, asked = options.browser or browser.find(), Prometheus(options.prometheus, options.ca)
        for name in options.dashboard or NAMES:
            print(draw(name, asked, span, chosen, program, options.out))
    except (PrometheusError, LookupError, browser.BrowserError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
