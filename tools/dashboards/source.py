"""Reads the tables of panels, one YAML file for each dashboard.

``title``, ``description``, ``variables``
    of the dashboard; what each variable is stands in ``variables.yml``.
``words``
    texts that stand for ``<name>`` in the queries below.
``rows``
    each with a ``title`` and ``panels``, which are laid out from left to right in lines of 24 columns.

A panel has a ``title``, a ``description`` that says what is shown and when it is bad, a ``unit`` as Grafana names it,
``queries`` and a ``kind``, which is ``timeseries`` if nothing is said. What else it may have is documented at `Panel`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLES = pathlib.Path(__file__).resolve().parent / "tables"
TARGET = ROOT / "roles" / "llm_monitoring" / "files" / "dashboards"
# In the order in which a person looks: is it well, who is it, and then by topic.
NAMES = ("fleet", "replica", "latency", "balancer", "gpu", "cost", "rollout")
_WORD = re.compile(r"<([a-z]+)>")
KINDS = ("timeseries", "stat", "gauge", "bargauge", "table", "state-timeline", "heatmap")


class TableError(Exception):
    """A table that cannot be used; the message names the file, the panel and what is wrong."""


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    expr: str
    legend: str = ""
    dashed: str = ""  # a colour: draw it as a dashed line without area, red for limits, text for comparisons


@dataclass(frozen=True)
class Panel:
    """One panel, as its table has it."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 0  # columns; 0: an even share of what is left of the line
    height: int = 0  # rows of the grid; 0: what is usual for its kind
    thresholds: Mapping[float, str] = field(default_factory=dict)  # from this value on -> colour
    states: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # value -> (word, colour)
    columns: Mapping[str, Any] = field(default_factory=dict)  # of a table: field -> {title, unit}
    min: float | None = None
    max: float | None = None
    soft_min: float = 0  # where the axis begins, unless a value is below
    decimals: int | None = None
    stack: bool = False
    trend: bool = True  # of a single value: draw its past behind it
    runbooks: tuple[str, ...] = ()  # alerts about what is shown
    open: str = ""  # the label, replica or host, whose dashboard tells more about a series
    needs: str = ""  # a series without which the panel is rightly empty


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard, as its table has it."""

    name: str
    title: str
    description: str
    variables: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def uid(self) -> str:
        """The id by which alerts and links find it."""
        return f"llmops-{self.name}"

    @property
    def panels(self) -> list[Panel]:
        """All panels, in their order."""
        return [panel for row in self.rows for panel in row.panels]


def dashboard(name: str) -> Dashboard:
    """Return a dashboard by the name of its table."""
    table = _load(TABLES / f"{name}.yml")
    words = table.get("words", {})
    rows = tuple(
        Row(
            row["title"],
            tuple(panel(f"{name}.yml: {entry.get('title', '?')}", entry, words) for entry in row["panels"]),
        )
        for row in table["rows"]
    )
    return Dashboard(name, table["title"], " ".join(table["description"].split()), tuple(table["variables"]), rows)


def dashboards() -> list[Dashboard]:
    """Return all dashboards."""
    return [dashboard(name) for name in NAMES]


def variables() -> dict[str, dict[str, Any]]:
    """Return what each template variable is."""
    found: dict[str, dict[str, Any]] = _load(TABLES / "variables.yml")
    return found


def runbooks_address() -> str:
    """Return the address of the runbooks: below the documentation that galaxy.yml names."""
    return f"{_load(ROOT / 'galaxy.yml')['documentation']}/runbooks"


def panel(where: str, entry: Mapping[str, Any], words: Mapping[str, str]) -> Panel:
    """Return a panel of a table; ``words`` stand for what its queries have in angle brackets."""
    known = {one.name for one in fields(Panel)}
    missing = {"title", "description", "unit", "queries"} - set(entry)
    if missing or set(entry) - known:
        raise TableError(f"{where}: missing {sorted(missing)}, unknown {sorted(set(entry) - known)}")
    kind = entry.get("kind", "timeseries")
    if kind not in KINDS:
        raise TableError(f"{where}: kind {kind} is none of {', '.join(KINDS)}")
    made: dict[str, Any] = {
        **entry,
        "description": " ".join(entry["description"].split()),
        "queries": tuple(_query(query, words) for query in entry["queries"]),
        "states": {str(value): (word, colour) for value, (word, colour) in entry.get("states", {}).items()},
        "runbooks": tuple(entry.get("runbooks", ())),
    }
    return Panel(**made)


def _query(written: Any, words: Mapping[str, str]) -> Query:
    parts = written if isinstance(written, dict) else {"expr": written}
    expr = _WORD.sub(lambda told: words[told[1]], " ".join(parts["expr"].split()))
    return Query(**{**parts, "expr": " ".join(expr.split())})


def _load(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
