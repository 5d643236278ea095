"""Asks for what a panel shows, and names it as its legend says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..prometheus import Prometheus, Series
from ..variables import Span, fill

_LABEL = re.compile(r"\{\{ *(\w+) *\}\}")


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    query: str  # refId
    labels: Mapping[str, str]
    values: list[tuple[float, float]]

    @property
    def numbers(self) -> list[float]:
        """The values that are numbers."""
        return [value for _time, value in self.values if math.isfinite(value)]

    @property
    def last(self) -> float:
        """The last value that is a number."""
        return self.numbers[-1] if self.numbers else math.nan


@dataclass(frozen=True)
class Shown:
    """A panel of the JSON with its data."""

    panel: Mapping[str, Any]
    span: Span
    lines: list[Line]
    regions: list[tuple[float, float]] = field(default_factory=list)  # rollouts

    @property
    def defaults(self) -> Mapping[str, Any]:
        """How values are shown."""
        found: Mapping[str, Any] = self.panel["fieldConfig"]["defaults"]
        return found

    @property
    def unit(self) -> str:
        """The unit of the values."""
        return str(self.defaults["unit"])

    @property
    def dashed(self) -> dict[str, str]:
        """The queries that are drawn dashed, with their colours."""
        return {
            override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
            for override in self.panel["fieldConfig"]["overrides"]
            if override["matcher"]["id"] == "byFrameRefID"
        }


def shown(
    panel: Mapping[str, Any],
    asked: Prometheus,
    span: Span,
    texts: Mapping[str, str],
    regions: list[tuple[float, float]],
) -> Shown:
    """Return a panel with its data."""
    lines = []
    for target in panel["targets"]:
        expr = fill(target["expr"], texts)
        found = (
            asked.instant(expr, span.end) if target["instant"] else asked.range(expr, span.start, span.end, span.step)
        )
        lines += [Line(_name(target["legendFormat"], one), target["refId"], one.labels, one.values) for one in found]
    return Shown(panel, span, sorted(lines, key=lambda line: (line.query, line.name)), regions)


def regions(
    dashboard: Mapping[str, Any], asked: Prometheus, span: Span, texts: Mapping[str, str]
) -> list[tuple[float, float]]:
    """Return from when to when a rollout ran."""
    expr = next(one["expr"] for one in dashboard["annotations"]["list"] if one["name"] == "Rollout runs")
    found: list[tuple[float, float]] = []
    for series in asked.range(fill(expr, texts), span.start, span.end, span.step):
        for time, _value in series.values:
            if found and time - found[-1][1] <= span.step * 1.5:
                found[-1] = (found[-1][0], time)
            else:
                found.append((time, time))
    return found


def _name(form: str, series: Series) -> str:
    if form:
        return " ".join(_LABEL.sub(lambda told: series.labels.get(told[1], ""), form).split())
    return ", ".join(f"{label}={value}" for label, value in series.labels.items()) or "value"
