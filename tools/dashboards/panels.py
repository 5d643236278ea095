"""What Grafana wants to know of a panel, by its kind: options and the way in which values are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .source import Panel, Query, runbooks_address

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}
# Whose dashboard tells more: label, and variable there -> dashboard.
OPENS = {"replica": "llmops-replica", "host": "llmops-gpu"}
# Kinds that show what is now, not what was.
NOW = ("gauge", "bargauge", "table")


def panel(number: int, place: Mapping[str, int], shown: Panel) -> dict[str, Any]:
    """Return a panel as Grafana's JSON has it."""
    found: dict[str, Any] = {
        "id": number,
        "type": shown.kind,
        "title": shown.title,
        "description": shown.description,
        "datasource": DATASOURCE,
        "gridPos": dict(place),
        "targets": [_target(chr(ord("A") + index), shown, query) for index, query in enumerate(shown.queries)],
        "fieldConfig": {"defaults": _defaults(shown), "overrides": _overrides(shown)},
        "options": _OPTIONS[shown.kind](shown),
    }
    if shown.runbooks:
        found["links"] = [_runbook(alert) for alert in shown.runbooks]
    if shown.kind == "table":
        found["transformations"] = _transformations(shown)
    return found


def heading(number: int, top: int, title: str) -> dict[str, Any]:
    """Return a heading, which is a panel to Grafana, too."""
    place = {"h": 1, "w": 24, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _target(letter: str, shown: Panel, query: Query) -> dict[str, Any]:
    forms = {"table": "table", "heatmap": "heatmap"}
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": forms.get(shown.kind, "time_series"),
        "instant": shown.kind in NOW,
        "range": shown.kind not in NOW,
    }


def _defaults(shown: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": shown.unit, "color": _colour(shown), "thresholds": _thresholds(shown)}
    found["mappings"] = [_mapping(shown.states)] if shown.states else []
    for name in ("min", "max", "decimals"):
        if getattr(shown, name) is not None:
            found[name] = getattr(shown, name)
    if shown.kind in _CUSTOM:
        found["custom"] = _CUSTOM[shown.kind](shown)
    if shown.open:
        found["links"] = [_open(shown.open)]
    return found


def _colour(shown: Panel) -> dict[str, Any]:
    if shown.kind in ("timeseries", "heatmap"):
        return {"mode": "palette-classic"}
    return {"mode": "thresholds"}


def _thresholds(shown: Panel) -> dict[str, Any]:
    """Below the first threshold the value is plain: green where high values are bad, red where low ones are."""
    steps: list[dict[str, Any]] = []
    colours = list(shown.thresholds.values())
    if shown.thresholds:
        steps.append({"value": None, "color": "green" if colours[-1] in ("red", "orange") else "red"})
    else:
        steps.append({"value": None, "color": "blue"})
    steps += [{"value": value, "color": colour} for value, colour in shown.thresholds.items()]
    return {"mode": "absolute", "steps": steps}


def _mapping(states: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    options = {
        value: {"text": word, "color": colour, "index": index}
        for index, (value, (word, colour)) in enumerate(states.items())
    }
    return {"type": "value", "options": options}


def _overrides(shown: Panel) -> list[dict[str, Any]]:
    found = []
    for index, query in enumerate(shown.queries):
        if query.dashed:
            properties = [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": query.dashed}},
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
            ]
            matcher = {"id": "byFrameRefID", "options": chr(ord("A") + index)}
            found.append({"matcher": matcher, "properties": properties})
    for column in shown.columns.values():
        wanted = [(name, column[name]) for name in ("unit", "decimals") if name in column]
        properties = [{"id": name, "value": value} for name, value in wanted]
        if column.get("open"):
            properties.append({"id": "links", "value": [_open(column["open"], "${__value.text}")]})
        if column.get("coloured"):
            properties.append({"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}})
        if properties:
            found.append({"matcher": {"id": "byName", "options": column["title"]}, "properties": properties})
    return found


def _transformations(shown: Panel) -> list[dict[str, Any]]:
    names = list(shown.columns)
    found: list[dict[str, Any]] = [] if len(shown.queries) < 2 else [{"id": "merge", "options": {}}]
    found.append({"id": "filterFieldsByName", "options": {"include": {"names": names}}})
    organize = {
        "excludeByName": {},
        "indexByName": {name: index for index, name in enumerate(names)},
        "renameByName": {name: column["title"] for name, column in shown.columns.items()},
    }
    return [*found, {"id": "organize", "options": organize}]


def _runbook(alert: str) -> dict[str, Any]:
    return {
        "type": "link",
        "title": f"Runbook: {alert}",
        "url": f"{runbooks_address()}/{alert}.md",
        "icon": "doc",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "targetBlank": True,
        "includeVars": False,
        "keepTime": False,
    }


def _open(label: str, value: str = "") -> dict[str, Any]:
    chosen = value or f"${{__field.labels.{label}}}"
    return {
        "title": f"More about {label} {chosen}",
        "url": f"/d/{OPENS[label]}?var-{label}={chosen}&${{datasource:queryparam}}&${{__url_time_range}}",
    }


def _timeseries(_shown: Panel) -> dict[str, Any]:
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _timeseries_custom(shown: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 30 if shown.stack else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "axisSoftMin": shown.soft_min,
        "stacking": {"mode": "normal" if shown.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if shown.thresholds else "off"},
    }


def _stat(shown: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": REDUCE,
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": "area" if shown.trend and len(shown.queries) == 1 else "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }


def _gauge(_shown: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": REDUCE,
        "orientation": "auto",
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
        "minVizWidth": 75,
        "minVizHeight": 75,
        # what Grafana 13 asks for beyond that; 11 and 12 take no notice
        "shape": "gauge",
        "barShape": "flat",
        "barWidthFactor": 0.4,
        "segmentCount": 1,
        "segmentSpacing": 0.3,
        "effects": {"barGlow": False, "centerGlow": False, "gradient": False},
    }


def _bargauge(_shown: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": REDUCE,
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 300,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
    }


def _table(shown: Panel) -> dict[str, Any]:
    first = next(iter(shown.columns.values()))["title"]
    sort = [{"displayName": first, "desc": False}]
    return {"frameIndex": 0, "showHeader": True, "cellHeight": "sm", "sortBy": sort}


def _table_custom(_shown: Panel) -> dict[str, Any]:
    return {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True}


def _state_timeline(_shown: Panel) -> dict[str, Any]:
    return {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "perPage": 20,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }


def _state_timeline_custom(_shown: Panel) -> dict[str, Any]:
    return {"lineWidth": 0, "fillOpacity": 75}


def _heatmap(shown: Panel) -> dict[str, Any]:
    colours = {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "fill": "dark-orange"}
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {**colours, "steps": 64, "reverse": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": shown.unit},
        "cellValues": {"unit": "short"},
    }


_OPTIONS = {
    "timeseries": _timeseries,
    "stat": _stat,
    "gauge": _gauge,
    "bargauge": _bargauge,
    "table": _table,
    "state-timeline": _state_timeline,
    "heatmap": _heatmap,
}
_CUSTOM = {"timeseries": _timeseries_custom, "table": _table_custom, "state-timeline": _state_timeline_custom}
