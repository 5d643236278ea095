"""Puts the panels of a dashboard into one page, in Grafana's grid."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from typing import Any

from . import charts, colours, numbers
from .data import Line, Shown
from .units import shown

WIDTH = 1500
EDGE, GAP, CELL = 14, 8, 38  # of a row of the grid, its gap included
TOP = 64
HEAD = 32
ENTRY = 19  # height of a line of a legend
DRAW = {
    "timeseries": charts.lines,
    "state-timeline": charts.states,
    "heatmap": charts.heat,
    "stat": numbers.stat,
    "gauge": numbers.gauge,
    "bargauge": numbers.bars,
    "table": numbers.table,
}
STYLE = f"""
* {{ box-sizing: border-box; margin: 0; }}
body {{ background: {colours.BACKGROUND}; color: {colours.TEXT}; width: {WIDTH}px; position: relative;
  font: 13px Inter, Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }}
svg {{ display: block; overflow: visible; }}
svg text {{ font-size: 11.5px; }}
header {{ position: absolute; left: {EDGE}px; right: {EDGE}px; top: 14px; display: flex; align-items: center;
  gap: 12px; }}
h1 {{ font-size: 19px; font-weight: 500; }}
.choice {{ border: 1px solid {colours.BORDER}; border-radius: 3px; background: {colours.PANEL}; padding: 5px 9px; }}
.choice b {{ color: {colours.FAINT}; font-weight: 500; margin-right: 8px; }}
.note {{ margin-left: auto; color: {colours.FAINT}; font-size: 12px; }}
.row {{ position: absolute; font-size: 15px; font-weight: 500; padding-top: 6px; }}
.panel {{ position: absolute; background: {colours.PANEL}; border: 1px solid {colours.BORDER}; border-radius: 3px;
  overflow: hidden; }}
.panel h2 {{ font-size: 13.5px; font-weight: 500; padding: 7px 10px 0; height: {HEAD}px; white-space: nowrap; }}
.panel h2 i {{ color: {colours.FAINT}; border: 1px solid {colours.FAINT}; border-radius: 50%; font: 500 9px serif;
  display: inline-block; width: 12px; height: 12px; line-height: 11px; text-align: center; margin-left: 7px;
  vertical-align: 1px; }}
.panel h2 em {{ color: {colours.FAINT}; font-style: normal; font-weight: 400; margin-left: 6px; }}
.body {{ padding: 0 6px; position: relative; }}
.none {{ color: {colours.FAINT}; text-align: center; padding-top: 40px; }}
.stats {{ display: flex; height: 100%; position: relative; align-items: center; }}
.cell {{ flex: 1; text-align: center; position: relative; overflow: hidden; }}
.name {{ color: {colours.TEXT}; white-space: nowrap; font-size: 12px; }}
.big {{ font-weight: 500; white-space: nowrap; line-height: 1.15; }}
.spark {{ position: absolute; left: 0; right: 0; bottom: 0; }}
.spark ~ .cell {{ padding-bottom: 20px; }}
table {{ border-collapse: collapse; width: 100%; }}
th {{ text-align: left; color: {colours.NAMES["blue"]}; font-weight: 500; font-size: 12px; }}
th, td {{ padding: 0 8px; height: 27px; border-bottom: 1px solid {colours.GRID}; white-space: nowrap;
  font-size: 12.5px; }}
.more {{ color: {colours.FAINT}; font-size: 11px; padding: 3px 8px; }}
.legend {{ font-size: 11.5px; display: grid; grid-template-columns: 1fr auto auto; column-gap: 16px;
  padding: 2px 8px; }}
.legend * {{ white-space: nowrap; line-height: {ENTRY}px; overflow: hidden; text-overflow: ellipsis; }}
.legend b {{ color: {colours.FAINT}; font-weight: 400; text-align: right; }}
.legend u {{ text-decoration: none; text-align: right; }}
.legend s {{ display: inline-block; width: 14px; height: 3px; border-radius: 1px; margin: 0 7px 3px 0; }}
"""


def page(dashboard: Mapping[str, Any], panels: Mapping[int, Shown], chosen: Mapping[str, str]) -> tuple[str, int]:
    """Return the page, and its height."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = TOP + bottom * CELL + EDGE
    span = next(iter(panels.values())).span
    parts = [_header(dashboard, chosen, span.start, span.end)]
    for panel in dashboard["panels"]:
        parts.append(_panel(panels[panel["id"]]) if panel["type"] != "row" else _row(panel))
    head = f'<meta charset="utf-8"><style>{STYLE}</style>'
    return (
        f'<!doctype html><html><head>{head}</head><body style="height:{height}px">{"".join(parts)}</body></html>',
        height,
    )


def _header(dashboard: Mapping[str, Any], chosen: Mapping[str, str], start: float, end: float) -> str:
    listed = [one for one in dashboard["templating"]["list"] if one["type"] == "query"]
    choices = "".join(
        f'<span class="choice"><b>{html.escape(one["label"])}</b>{html.escape(chosen.get(one["name"], "All"))}</span>'
        for one in listed
    )
    day, begin, until = (
        time.strftime(form, time.gmtime(at)) for form, at in (("%Y-%m-%d", end), ("%H:%M", start), ("%H:%M", end))
    )
    note = f'<span class="note">{day} {begin} to {until} UTC · a preview, not Grafana</span>'
    return f"<header><h1>{html.escape(dashboard['title'])}</h1>{choices}{note}</header>"


def _row(panel: Mapping[str, Any]) -> str:
    left, top, _width, _height = _box(panel["gridPos"])
    return f'<div class="row" style="left:{left:.0f}px;top:{top:.0f}px">⌄ {html.escape(panel["title"])}</div>'


def _panel(panel: Shown) -> str:
    left, top, width, height = _box(panel.panel["gridPos"])
    inner, room = width - 14, height - HEAD - 8
    told = _legend(panel) if panel.panel["type"] == "timeseries" and panel.lines else ("", 0)
    kind = panel.panel["type"]
    body = DRAW[kind](panel, inner, room - told[1]) if panel.lines else '<div class="none">No data</div>'
    place = f"left:{left:.0f}px;top:{top:.0f}px;width:{width:.0f}px;height:{height:.0f}px"
    runbooks = "<em>↗</em>" if panel.panel.get("links") else ""
    title = f"<h2>{html.escape(panel.panel['title'])}<i>i</i>{runbooks}</h2>"
    drawn = f'<div class="body" style="height:{room - told[1]:.0f}px">{body}</div>'
    return f'<div class="panel" style="{place}">{title}{drawn}{told[0]}</div>'


def _legend(panel: Shown) -> tuple[str, int]:
    """The names of the lines with their last and highest value, and the height that it takes."""
    fits = 4 if len(panel.lines) <= 4 else 3
    colour = dict(zip(map(id, panel.lines), charts.series_colours(panel)))
    cells = ["<span></span><b>last</b><b>max</b>"]
    for line in panel.lines[:fits]:
        name = f'<span><s style="background:{colour[id(line)]}"></s>{html.escape(line.name)}</span>'
        cells.append(f"{name}<u>{_worth(panel, line.last)}</u><u>{_worth(panel, _most(line))}</u>")
    count = min(fits, len(panel.lines)) + 1
    if len(panel.lines) > fits:
        cells.append(f"<b style='text-align:left'>{len(panel.lines) - fits} more</b><span></span><span></span>")
        count += 1
    return f'<div class="legend">{"".join(cells)}</div>', count * ENTRY + 2


def _most(line: Line) -> float:
    return max(line.numbers, default=float("nan"))


def _worth(panel: Shown, value: float) -> str:
    return html.escape(shown(panel.unit, value, panel.defaults.get("decimals")))


def _box(place: Mapping[str, int]) -> tuple[float, float, float, float]:
    column = (WIDTH - 2 * EDGE + GAP) / 24
    return (
        EDGE + place["x"] * column,
        TOP + place["y"] * CELL,
        place["w"] * column - GAP,
        place["h"] * CELL - GAP,
    )
