"""Draws panels that show what is now: single values, gauges, bars, tables."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import charts, colours
from .data import Line, Shown
from .units import shown


def stat(panel: Shown, width: float, height: float) -> str:
    """Draw the last value of each series, large, with its past behind it."""
    cells = []
    for line in panel.lines:
        text, colour = _value(panel, line.last)
        room = width / len(panel.lines)
        size = min(46.0, room / max(3, len(text)) * 1.55, (height - (22 if len(panel.lines) > 1 else 8)) * 0.6)
        name = f'<div class="name">{html.escape(line.name)}</div>' if len(panel.lines) > 1 else ""
        value = f'<div class="big" style="color:{colour};font-size:{size:.0f}px">{html.escape(text)}</div>'
        cells.append(f'<div class="cell">{name}{value}</div>')
    behind = ""
    if panel.panel["options"]["graphMode"] == "area" and len(panel.lines) == 1 and "mappings" in panel.defaults:
        line = panel.lines[0]
        if not panel.defaults["mappings"]:
            behind = f'<div class="spark">{charts.spark(line, _value(panel, line.last)[1], width, height * 0.45)}</div>'
    return f'<div class="stats">{behind}{"".join(cells)}</div>'


def gauge(panel: Shown, width: float, height: float) -> str:
    """Draw the last value of each series as an arc between the least and the most."""
    room = width / max(1, len(panel.lines))
    return '<div class="stats">' + "".join(_arc(panel, line, room, height) for line in panel.lines) + "</div>"


def bars(panel: Shown, width: float, height: float) -> str:
    """Draw the last value of each series as a bar."""
    most = max([panel.defaults.get("max", 1), *(line.last for line in panel.lines)])
    room = min(30.0, height / max(1, len(panel.lines)))
    left, parts = max((len(line.name) for line in panel.lines), default=1) * charts.LETTER + 14, []
    for row, line in enumerate(panel.lines):
        text, colour = _value(panel, line.last)
        top, full = row * room, width - left - 46
        middle = top + room / 2 + 4
        parts.append(charts.words(left - 8, middle, line.name, "end", colours.TEXT))
        for wide, shade in ((full, colours.GRID), (full * max(0.0, line.last) / most, colour)):
            box = f'x="{left:.1f}" y="{top + 2:.1f}" width="{wide:.1f}" height="{room - 5:.1f}"'
            parts.append(f'<rect {box} rx="2" fill="{shade}"/>')
        parts.append(charts.words(width - 38, middle, text, "start", colour))
    return charts.svg(width, height, parts)


def table(panel: Shown, _width: float, height: float) -> str:
    """Draw labels and values as rows, as the transformations of the panel say."""
    names = panel.panel["transformations"][-1]["options"]["renameByName"]
    units = {
        override["matcher"]["options"]: {one["id"]: one["value"] for one in override["properties"]}
        for override in panel.panel["fieldConfig"]["overrides"]
    }
    first = next(iter(names))
    rows = sorted(_rows(panel.lines), key=lambda row: str(row.get(first, "")))
    fits = max(1, int(height / 27) - 1)
    head = "".join(f"<th>{html.escape(title)}</th>" for title in names.values())
    body = ""
    for row in rows[:fits]:
        cells = (_cell(panel, row.get(field, ""), units.get(title, {})) for field, title in names.items())
        body += "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in cells) + "</tr>"
    more = f'<div class="more">{len(rows) - fits} more</div>' if len(rows) > fits else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One row for each set of labels; with several queries, their values stand side by side."""
    several = len({line.query for line in lines}) > 1
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for line in lines:
        row = found.setdefault(tuple(sorted(line.labels.items())), dict(line.labels))
        row[f"Value #{line.query}" if several else "Value"] = line.last
    return list(found.values())


def _cell(panel: Shown, value: Any, column: Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return value
    return shown(column.get("unit", panel.unit), value, column.get("decimals", panel.defaults.get("decimals")))


def _value(panel: Shown, value: float) -> tuple[str, str]:
    return colours.state(panel.defaults, value) or (
        shown(panel.unit, value, panel.defaults.get("decimals")),
        colours.of_value(panel.defaults, value),
    )


def _arc(panel: Shown, line: Line, width: float, height: float) -> str:
    low, high = panel.defaults["min"], panel.defaults["max"]
    text, colour = _value(panel, line.last)
    radius = min(width / 2 - 10, height - 34)
    middle, floor = width / 2, height - 22
    part = (min(max(line.last, low), high) - low) / (high - low)
    parts = [_bow(middle, floor, radius, 0, 1, 14, colours.GRID), _bow(middle, floor, radius, 0, part, 14, colour)]
    steps = panel.defaults["thresholds"]["steps"]
    for step, following in zip(steps, [*steps[1:], {"value": high}]):
        start = 0 if step["value"] is None else (step["value"] - low) / (high - low)
        end = min(1.0, (following["value"] - low) / (high - low))
        parts.append(_bow(middle, floor, radius + 10, start, end, 3, colours.NAMES[step["color"]]))
    big = f'<text x="{middle:.0f}" y="{floor - 4:.0f}" text-anchor="middle" fill="{colour}"'
    parts.append(f'{big} style="font-size:{min(26.0, radius / 2.2):.0f}px;font-weight:500">{html.escape(text)}</text>')
    parts.append(charts.words(middle, height - 4, line.name, "middle", colours.TEXT))
    return charts.svg(width, height, parts)


def _bow(x: float, y: float, radius: float, start: float, end: float, thick: float, colour: str) -> str:
    """Part of a half circle, from left to right."""
    (from_x, from_y), (to_x, to_y) = (
        (x - radius * math.cos(part * math.pi), y - radius * math.sin(part * math.pi)) for part in (start, end)
    )
    path = f"M {from_x:.1f} {from_y:.1f} A {radius:.1f} {radius:.1f} 0 0 1 {to_x:.1f} {to_y:.1f}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{thick:g}"/>'
