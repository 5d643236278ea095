"""Makes Grafana's JSON of a dashboard, in the classic form (schemaVersion 41), which Grafana 11 to 13 read."""

from __future__ import annotations

import functools
import json
from typing import Any

from . import layout, panels
from .source import TARGET, Dashboard, dashboards, variables

SCHEMA_VERSION = 41
TAG = "llmops"
ROLLOUT = 'max by (pool, action) (llmops_rollout_{what}{{pool=~"{pool}"}})'


def text(dashboard: Dashboard) -> str:
    """Return the file of a dashboard."""
    return json.dumps(made(dashboard), indent=2, ensure_ascii=False) + "\n"


def files() -> dict[str, str]:
    """Return file name -> text of all dashboards."""
    return {f"{dashboard.uid}.json": text(dashboard) for dashboard in dashboards()}


def stale() -> list[str]:
    """Return the files that are not what the tables say, those that no table knows included."""
    wanted = files()
    found = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.json")}
    return sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))


def write() -> list[str]:
    """Write all dashboards, remove files that no table knows, and return the names of those that changed."""
    changed, wanted = stale(), files()
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (TARGET / name).write_text(wanted[name], encoding="utf-8")
        else:
            (TARGET / name).unlink()
    return changed


@functools.cache
def panel_ids(uid: str) -> dict[str, int]:
    """Return title -> id of the panels of a dashboard: by its id a link leads to a panel."""
    (found,) = (dashboard for dashboard in dashboards() if dashboard.uid == uid)
    return {panel["title"]: panel["id"] for panel in _panels(found) if panel["type"] != "row"}


def made(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana's JSON has it."""
    return {
        "uid": dashboard.uid,
        "title": f"LLM {dashboard.title}",
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # one crosshair in all panels
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "links": [_links()],
        "annotations": {"list": [_alerts_of_grafana(), *_rollouts(dashboard)]},
        "templating": {"list": [_variable(name) for name in ("datasource", *dashboard.variables)]},
        "panels": _panels(dashboard),
    }


def _panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    top = 0
    for row in dashboard.rows:
        found.append(panels.heading(len(found) + 1, top, row.title))
        top += layout.HEADING
        places = layout.places(row.panels, top)
        for panel, place in zip(row.panels, places):
            found.append(panels.panel(len(found) + 1, place, panel))
        top = max(place["y"] + place["h"] for place in places)
    return found


def _links() -> dict[str, Any]:
    """Links to all dashboards of ours; the choice of pool, replica, host and time goes with them."""
    return {
        "type": "dashboards",
        "title": "LLM dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _variable(name: str) -> dict[str, Any]:
    about = variables()[name]
    found: dict[str, Any] = {
        "name": name,
        "label": about["label"],
        "description": about["description"],
        "hide": 0,
        "skipUrlSync": False,
    }
    if name == "datasource":
        return {**found, "type": "datasource", "query": "prometheus", "multi": False, "includeAll": False}
    return {
        **found,
        "type": "query",
        "datasource": panels.DATASOURCE,
        "query": {"qryType": 1, "query": about["query"], "refId": name},
        "refresh": 2,  # whenever the time range changes: a replica may have come
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _alerts_of_grafana() -> dict[str, Any]:
    return {
        "name": "Annotations & Alerts",
        "type": "dashboard",
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }


def _rollouts(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Rollouts, as regions while they run and as a mark where the last one began, which a scrape cannot miss."""
    pool = "$pool" if "pool" in dashboard.variables else ".*"
    running = ROLLOUT.format(what="in_progress", pool=pool)
    began = ROLLOUT.format(what="last_start_timestamp_seconds", pool=pool)
    common = {"datasource": panels.DATASOURCE, "enable": True, "hide": False, "step": "15s"}
    words = {"titleFormat": "{{action}} of pool {{pool}}", "tagKeys": "pool,action"}
    return [
        {"name": "Rollout runs", "iconColor": "purple", "expr": f"{running} == 1", **common, **words},
        {
            "name": "Rollout began",
            "iconColor": "blue",
            "expr": f"{began} * 1000",
            "useValueForTime": True,
            **common,
            **words,
        },
    ]
