"""Puts values in the place of variables, as Grafana does: template variables and those of time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .prometheus import Prometheus

ALL = "$__all"
_QUERY = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Span:
    """What is looked at: from when to when, in which steps, and how often Prometheus scrapes."""

    start: float
    end: float
    step: float
    scrape: float

    def texts(self) -> dict[str, str]:
        """Return the variables of time. A rate needs four scrapes, or a step and one scrape before it."""
        rate = max(self.step + self.scrape, 4 * self.scrape)
        length = self.end - self.start
        return {"__interval": f"{self.step:g}s", "__rate_interval": f"{rate:g}s", "__range": f"{length:g}s"}


def seconds(text: str) -> float:
    """Return the seconds of a duration such as 15m."""
    told = re.fullmatch(r"(\d+)([smhd])", text)
    if not told:
        raise ValueError(f"{text}: a duration is a number and one of {', '.join(_UNITS)}, such as 15m")
    return float(told[1]) * _UNITS[told[2]]


def resolve(
    listed: Sequence[Mapping[str, Any]], chosen: Mapping[str, Sequence[str]], asked: Prometheus, span: Span
) -> dict[str, str]:
    """Return the text of each template variable; where nothing is chosen, that of All.

    A variable must have values to choose from: it raises LookupError otherwise, because its list would be empty.
    """
    found = dict(span.texts())
    for variable in listed:
        if variable["type"] != "query":
            continue
        told = _QUERY.fullmatch(variable["query"]["query"])
        if told is None:
            raise LookupError(f"{variable['name']}: {variable['query']['query']} is no label_values(series, label)")
        values = asked.label_values(told["label"], fill(told["selector"], found), span.start, span.end)
        if not values:
            raise LookupError(f"variable {variable['name']}: no series for {fill(told['selector'], found)}")
        wanted = chosen.get(variable["name"])
        found[variable["name"]] = _pattern(wanted) if wanted else variable["allValue"]
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of its variables; one that is not known stays as it is."""
    return _VARIABLE.sub(lambda told: values.get(told[1] or told[2], told[0]), text)


def _pattern(values: Sequence[str]) -> str:
    quoted = [re.sub(r"[\\^$*+?.()|{}\[\]]", r"\\\\\g<0>", value) for value in values]
    return quoted[0] if len(quoted) == 1 else f"({'|'.join(quoted)})"
