"""Places panels in Grafana's grid of 24 columns: from left to right in lines, without gaps, overlaps or overflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .source import Panel

COLUMNS = 24
HEADING = 1  # rows of the grid that a heading takes
SMALL = ("stat", "gauge")
# Narrower than this, a legend or an axis is not readable.
LEAST = {"stat": 3, "gauge": 4}
USUAL = 8


def height(line: Sequence[Panel]) -> int:
    """Return the height of a line: that of its highest panel."""
    return max(panel.height or (4 if panel.kind in SMALL else 8) for panel in line)


def lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    """Yield the panels line by line: a new one begins where the next panel would not fit."""
    line: list[Panel] = []
    for panel in panels:
        if line and sum(map(_wanted, line)) + _wanted(panel) > COLUMNS:
            yield line
            line = []
        line.append(panel)
    if line:
        yield line


def widths(line: Sequence[Panel]) -> list[int]:
    """Return the width of each panel of a line: together 24 columns, what is left goes to those without a width."""
    found = [_wanted(panel) for panel in line]
    open_ended = [index for index, panel in enumerate(line) if not panel.width] or list(range(len(line)))
    for turn in range(COLUMNS - sum(found)):
        found[open_ended[turn % len(open_ended)]] += 1
    return found


def places(panels: Sequence[Panel], top: int) -> list[dict[str, int]]:
    """Return Grafana's ``gridPos`` of each panel, the first line at ``top``."""
    found = []
    for line in lines(panels):
        high, left = height(line), 0
        for width in widths(line):
            found.append({"h": high, "w": width, "x": left, "y": top})
            left += width
        top += high
    return found


def _wanted(panel: Panel) -> int:
    return panel.width or LEAST.get(panel.kind, USUAL)
