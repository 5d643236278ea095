"""Asks a Prometheus, as Grafana's data source does."""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TIMEOUT = 30


class PrometheusError(Exception):
    """A question that was not answered; the message names the address and the reason."""


@dataclass(frozen=True)
class Series:
    """One series: its labels, and its values as (time, value)."""

    labels: dict[str, str]
    values: list[tuple[float, float]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where Prometheus is; a login in an option could be read in the list of processes."""
    known = os.environ.get("PROMETHEUS_URL")
    address = "its address, with the login that it wants (default: $PROMETHEUS_URL)"
    parser.add_argument("--prometheus", default=known, required=not known, metavar="URL", help=address)
    authority = "certificate of the authority that signed its own (default: $LLMOPS_CA)"
    parser.add_argument("--ca", default=os.environ.get("LLMOPS_CA"), metavar="FILE", help=authority)


class Prometheus:
    """One Prometheus, by its address, which may hold a login."""

    def __init__(self, address: str, ca: str | None = None) -> None:
        """``ca``: the file of the authority that is trusted, where that is none of the system's."""
        parts = urllib.parse.urlsplit(address)
        self.address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._headers = {}
        if parts.username:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._trust = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None

    def instant(self, expr: str, at: float) -> list[Series]:
        """Return what an expression is worth at a moment."""
        result = self.ask("query", query=expr, time=f"{at:.3f}")
        if result["resultType"] == "scalar":
            return [Series({}, [_sample(result["result"])])]
        return [Series(_labels(one), [_sample(one["value"])]) for one in result["result"]]

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Return what an expression is worth over time."""
        result = self.ask("query_range", query=expr, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:g}")
        return [series for one in result["result"] for series in _over_time(one)]

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """Return the values that a label has in the series that a selector finds."""
        found: list[str] = self.ask(
            f"label/{urllib.parse.quote(label)}/values", **{"match[]": selector}, start=f"{start:.3f}", end=f"{end:.3f}"
        )
        return found

    def ask(self, path: str, **words: str) -> Any:
        """Return the data of an answer of its interface; PrometheusError names the address and the reason."""
        address = f"{self.address}/api/v1/{path}"
        if not address.startswith(("http://", "https://")):
            raise PrometheusError(f"{self.address}: not an address that begins with http:// or https://")
        try:
            asked = urllib.request.Request(f"{address}?{urllib.parse.urlencode(words)}", headers=self._headers)
            with urllib.request.urlopen(asked, timeout=TIMEOUT, context=self._trust) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"GET {address}: {_reason(error)}: {words.get('query', words)}") from error
        except (OSError, ValueError) as error:
            raise PrometheusError(f"GET {address}: {error}") from error


def _labels(one: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = one["metric"]
    return found


def _over_time(one: dict[str, Any]) -> Iterator[Series]:
    """Yield a series; for native histograms what their classic buckets would be: below each border, over time."""
    if "values" in one:
        yield Series(_labels(one), [_sample(value) for value in one["values"]])
    seen = [
        (float(at), [(float(upper), float(count)) for _rule, _lower, upper, count in histogram.get("buckets", [])])
        for at, histogram in one.get("histograms", [])
    ]
    for border in sorted({upper for _at, buckets in seen for upper, _count in buckets}):
        below = [(at, math.fsum(count for upper, count in buckets if upper <= border)) for at, buckets in seen]
        yield Series({**_labels(one), "le": f"{border:g}"}, below)


def _sample(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError):
        return str(error)
