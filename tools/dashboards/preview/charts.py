"""Draws panels over time as SVG: lines, states, heat."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterator, Sequence

from . import colours
from .data import Line, Shown
from .units import shown, ticks

LETTER = 6.6  # width of a letter of the axes
BOTTOM = 22


def svg(width: float, height: float, parts: Sequence[str]) -> str:
    """Return a picture of this size."""
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">{"".join(parts)}</svg>'
    )


def series_colours(panel: Shown) -> list[str]:
    """Return the colour of each line; dashed ones have their own and take none of the others."""
    found, free = [], 0
    for line in panel.lines:
        if line.query in panel.dashed:
            found.append(colours.NAMES[panel.dashed[line.query]])
        else:
            found.append(colours.SERIES[free % len(colours.SERIES)])
            free += 1
    return found


def lines(panel: Shown, width: float, height: float) -> str:
    """Draw lines and areas over time, with limits and thresholds dashed."""
    custom = panel.defaults["custom"]
    stacked = custom["stacking"]["mode"] == "normal"
    tops = _stacks(panel) if stacked else {index: dict(line.values) for index, line in enumerate(panel.lines)}
    values = [value for top in tops.values() for value in top.values() if math.isfinite(value)]
    low, high = _bounds(panel, values)
    marks = ticks(panel.unit, low, high, max(2, int(height / 42)))
    high = max([high, *(at for at, _text in marks)])
    left = max(len(text) for _at, text in marks) * LETTER + 10
    frame = _Frame(panel, left, width, height, low, high)
    parts = [*frame.axes(marks), *frame.regions()]
    under: dict[float, float] = {}
    for index, (line, colour) in enumerate(zip(panel.lines, series_colours(panel))):
        limit = line.query in panel.dashed
        for piece in _pieces(sorted(tops[index].items()), panel.span.step):
            path = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in piece)
            if not limit:
                floor = [(at, under.get(at, low)) if stacked else (at, low) for at, _value in reversed(piece)]
                back = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in floor)
                opacity = custom["fillOpacity"] / 100
                parts.append(f'<polygon points="{path} {back}" fill="{colour}" fill-opacity="{opacity}"/>')
            dash = ' stroke-dasharray="8 6" stroke-opacity="0.8"' if limit else ""
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dash}/>')
        if stacked and not limit:
            under = tops[index]
    if custom["thresholdsStyle"]["mode"] != "off":
        parts += frame.thresholds()
    return svg(width, height, parts)


def states(panel: Shown, width: float, height: float) -> str:
    """Draw the states of each series as bars over time."""
    left = min(width / 3, max((len(line.name) for line in panel.lines), default=1) * LETTER + 14)
    frame = _Frame(panel, left, width, height, 0, 1)
    parts = frame.axes([])
    room = (height - BOTTOM) / max(1, len(panel.lines))
    for row, line in enumerate(panel.lines):
        top = row * room + room * 0.08
        parts.append(words(left - 8, top + room * 0.42 + 4, line.name, "end", colours.TEXT))
        for start, end, value in _runs(line, panel.span.step):
            word, colour = colours.state(panel.defaults, value) or (shown(panel.unit, value), colours.FAINT)
            x, wide = frame.x(start), frame.x(min(end, panel.span.end)) - frame.x(start)
            box = f'x="{x:.1f}" y="{top:.1f}" width="{max(wide, 1):.1f}" height="{room * 0.84:.1f}"'
            parts.append(f'<rect {box} fill="{colour}" fill-opacity="0.75"/>')
            if wide > len(word) * LETTER + 8 and room > 14:
                parts.append(words(x + 6, top + room * 0.42 + 4, word, "start", colours.ink(colour)))
    return svg(width, height, [*parts, *frame.regions()])


def heat(panel: Shown, width: float, height: float) -> str:
    """Draw how many observations fell into which bucket, over time."""
    rows = _buckets(panel.lines)
    most = max((value for _bound, cells in rows for value in cells.values()), default=0)
    names = [shown(panel.unit, bound) if math.isfinite(bound) else "more" for bound, _cells in rows]
    left = max(map(len, names), default=1) * LETTER + 10
    frame = _Frame(panel, left, width, height, 0, 1)
    parts = frame.axes([])
    room = (height - BOTTOM) / max(1, len(rows))
    wide = frame.x(panel.span.start + panel.span.step) - frame.x(panel.span.start)
    every = math.ceil(13 / room)
    for index, (_bound, cells) in enumerate(rows):
        top = height - BOTTOM - (index + 1) * room
        if index % every == 0:
            parts.append(words(left - 6, top + 4, names[index], "end", colours.FAINT))
        for at, value in cells.items():
            if most and value > most / 1e4:
                shade = colours.HEAT[min(len(colours.HEAT) - 1, int((value / most) ** 0.5 * len(colours.HEAT)))]
                box = f'x="{frame.x(at) - wide:.1f}" y="{top + 0.5:.1f}"'
                size = f'width="{max(wide - 0.6, 0.8):.1f}" height="{max(room - 1, 1):.1f}"'
                parts.append(f'<rect {box} {size} fill="{shade}"/>')
    return svg(width, height, parts)


def spark(line: Line, colour: str, width: float, height: float) -> str:
    """Draw a line without axes, as behind a single value."""
    points = [(at, value) for at, value in line.values if math.isfinite(value)]
    if len(points) < 2:
        return ""
    values = [value for _at, value in points]
    low, high = min(values), max(values)
    reach, length = (high - low) or abs(high) or 1, points[-1][0] - points[0][0]
    path = " ".join(
        f"{(at - points[0][0]) / length * width:.1f},{height - 2 - (value - low) / reach * (height - 6):.1f}"
        for at, value in points
    )
    area = f'<polygon points="{path} {width:.0f},{height:.0f} 0,{height:.0f}" fill="{colour}" fill-opacity="0.15"/>'
    return svg(width, height, [area, f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>'])


class _Frame:
    """The plane in which a chart is drawn: from time and value to places."""

    def __init__(self, panel: Shown, left: float, width: float, height: float, low: float, high: float) -> None:
        self.panel, self.left, self.right, self.floor = panel, left, width - 8, height - BOTTOM
        self.low, self.high = low, high

    def x(self, at: float) -> float:
        span = self.panel.span
        return self.left + (at - span.start) / (span.end - span.start) * (self.right - self.left)

    def y(self, value: float) -> float:
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.floor - part * (self.floor - 6)

    def axes(self, marks: Sequence[tuple[float, str]]) -> list[str]:
        parts = []
        for at, text in marks:
            y = self.y(at)
            parts.append(_stroke(self.left, y, self.right, y, colours.GRID))
            parts.append(words(self.left - 6, y + 4, text, "end", colours.FAINT))
        for at in self._moments():
            x = self.x(at)
            parts.append(_stroke(x, 4, x, self.floor, colours.GRID))
            parts.append(words(x, self.floor + 16, time.strftime("%H:%M", time.gmtime(at)), "middle", colours.FAINT))
        return parts

    def regions(self) -> list[str]:
        parts, purple = [], colours.NAMES["purple"]
        for start, end in self.panel.regions:
            x, wide = self.x(start), max(1.0, self.x(end) - self.x(start))
            box = f'x="{x:.1f}" y="4" width="{wide:.1f}" height="{self.floor - 4:.1f}"'
            parts.append(f'<rect {box} fill="{purple}" fill-opacity="0.1"/>')
            parts.append(f'<rect x="{x:.1f}" y="{self.floor:.1f}" width="{wide:.1f}" height="3" fill="{purple}"/>')
        return parts

    def thresholds(self) -> list[str]:
        found = []
        for step in self.panel.defaults["thresholds"]["steps"]:
            if step["value"] is not None and self.low <= step["value"] <= self.high:
                y = self.y(step["value"])
                colour = colours.NAMES[step["color"]]
                found.append(
                    _stroke(self.left, y, self.right, y, colour, ' stroke-dasharray="6 6" stroke-opacity="0.7"')
                )
        return found

    def _moments(self) -> Iterator[float]:
        """Round times, as many as there is room for."""
        span, most = self.panel.span, max(2, int((self.right - self.left) / 75))
        steps = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
        step = next((one for one in steps if (span.end - span.start) / one <= most), steps[-1])
        at = math.ceil(span.start / step) * step
        while at <= span.end:
            if self.x(at) < self.right - 14:
                yield at
            at += step


def _bounds(panel: Shown, values: Sequence[float]) -> tuple[float, float]:
    """The ends of the axis: what the panel says is the least or the most, or its values need."""
    soft = panel.defaults["custom"]["axisSoftMin"]
    low, high = min([soft, *values]), max([soft, *values])
    low, high = panel.defaults.get("min", low), panel.defaults.get("max", high)
    if high <= low:
        high = low + (0.01 if panel.unit == "percentunit" else 1)
    return low, high


def _stacks(panel: Shown) -> dict[int, dict[float, float]]:
    """Each line on top of those before it."""
    sums: dict[float, float] = {}
    found = {}
    for index, line in enumerate(panel.lines):
        own = {at: value for at, value in line.values if math.isfinite(value)}
        if line.query in panel.dashed:
            found[index] = own
            continue
        for at, value in own.items():
            sums[at] = sums.get(at, 0.0) + value
        found[index] = {at: sums[at] for at in own}
    return found


def _pieces(points: Sequence[tuple[float, float]], step: float) -> Iterator[list[tuple[float, float]]]:
    """Parts of a line without a gap."""
    piece: list[tuple[float, float]] = []
    for at, value in points:
        if not math.isfinite(value):
            continue
        if piece and at - piece[-1][0] > step * 1.5:
            yield piece
            piece = []
        piece.append((at, value))
    if piece:
        yield piece


def _runs(line: Line, step: float) -> Iterator[tuple[float, float, float]]:
    """Spans in which a value stays the same."""
    start = end = value = math.nan
    for at, now in line.values:
        if now == value and at - end <= step * 0.5:
            end = at + step
            continue
        if not math.isnan(start):
            yield start, min(end, at), value
        start, end, value = at, at + step, now
    if not math.isnan(start):
        yield start, end, value


def _buckets(found: Sequence[Line]) -> list[tuple[float, dict[float, float]]]:
    """Counts of each bucket alone, from the lowest that has any to the highest."""
    ordered = sorted((float(line.labels["le"]), dict(line.values)) for line in found)
    rows: list[tuple[float, dict[float, float]]] = []
    below: dict[float, float] = {}
    for bound, counts in ordered:
        rows.append((bound, {at: max(0.0, value - below.get(at, 0.0)) for at, value in counts.items()}))
        below = counts
    most = max((value for _bound, cells in rows for value in cells.values()), default=0)
    used = [index for index, (_bound, cells) in enumerate(rows) if any(value > most / 1e4 for value in cells.values())]
    return rows[max(0, used[0] - 1) : used[-1] + 2] if used else rows


def words(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    """Return a text of a picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'


def _stroke(x: float, y: float, to_x: float, to_y: float, colour: str, more: str = "") -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {ends} stroke="{colour}"{more}/>'
