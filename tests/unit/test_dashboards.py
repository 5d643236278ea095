"""Dashboards: what is committed is what the tables say, Grafana takes it, and it answers what an operator asks."""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests import native_histograms
from tests.fakes.metrics.fleet import Fleet
from tools.dashboards import build, source
from tools.rules.source import series_names

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(source.TARGET.glob("*.json"))
SCHEMA = json.loads((ROOT / "tests" / "data" / "grafana_dashboard_13.2.3.json").read_text())["definitions"]
REAL = json.loads((ROOT / "tests" / "fakes" / "vllm" / "metrics_0.32.json").read_text())
RULES = ROOT / "roles" / "llm_monitoring" / "files" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGE = (ROOT / "docs" / "dashboards.md").read_text()
# Grafana lets data sources put anything into an annotation (packages/grafana-data: `[key: string]: any`); these are
# what Prometheus' own takes.
OF_ANNOTATIONS = {"expr", "step", "tagKeys", "titleFormat", "useValueForTime"}
UNITS = {"short", "s", "reqps", "percentunit", "currencyUSD", "bytes", "Bps", "celsius", "watt", "hertz", "h"}
# Several programs have series of these names: without a job, one gets those of all.
SHARED = re.compile(r"\b((?:up|process_\w+|probe_\w+|http_\w+|node_\w+|prometheus_\w+)\b)(?!\()(\{[^}]*\})?")
WINDOW = re.compile(r"\[([^\]]+)\]")


def panels(path: pathlib.Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in FILES:
        for panel in panels(path):
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target


def recorded() -> set[str]:
    groups = [group for path in RULES.glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def alerts() -> set[str]:
    groups = [group for path in RULES.glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


@functools.cache
def scraped() -> set[str]:
    """Names of all series that a fleet offers, over a whole story; the running rollout's series come and go."""
    fleet, found = Fleet(0.0), set()
    for minute in range(1, 30):
        fleet.advance(minute * 60.0)
        found |= {name for bag in fleet.bags.values() for name in bag.samples}
    return found


def test_committed_files_are_what_the_tables_say() -> None:
    assert build.stale() == [], "run `python -m tools.dashboards`"


@pytest.mark.parametrize(
    ("change", "told"),
    [({"colour": "red"}, r"unknown \['colour'\]"), ({"kind": "pie"}, "kind pie is none of timeseries")],
)
def test_a_table_with_a_slip_is_refused(change: dict[str, str], told: str) -> None:
    entry = {"title": "t", "description": "d", "unit": "s", "queries": ["up"], **change}
    with pytest.raises(source.TableError, match=f"fleet.yml: t: .*{told}"):
        source.panel("fleet.yml: t", entry, {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_schema_takes_it(path: pathlib.Path) -> None:
    dashboard = json.loads(path.read_text())
    for annotation in dashboard["annotations"]["list"]:
        for name in OF_ANNOTATIONS:
            annotation.pop(name, None)
    assert _errors("dashboard", dashboard) == []
    for panel in panels(path):
        kind = panel["type"]
        assert _errors(f"{kind}.options", panel["options"]) == [], panel["title"]
        if f"{kind}.custom" in SCHEMA:
            assert _errors(f"{kind}.custom", panel["fieldConfig"]["defaults"].get("custom", {})) == [], panel["title"]


def _errors(name: str, value: Any) -> list[str]:
    found = jsonschema.Draft7Validator(SCHEMA[name]).iter_errors(value)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


def test_uids_are_those_that_alerts_name() -> None:
    assert [path.stem for path in FILES] == sorted(f"llmops-{name}" for name in source.NAMES)
    assert {json.loads(path.read_text())["uid"] for path in FILES} == {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_fill_the_grid_without_overlap(path: pathlib.Path) -> None:
    found = json.loads(path.read_text())["panels"]
    places = [panel["gridPos"] for panel in found]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert max(x for x, _y in taken) < 24
    assert len(taken) == len(set(taken)) == 24 * (1 + max(y for _x, y in taken))
    assert [panel["id"] for panel in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows(path: pathlib.Path) -> None:
    found = panels(path)
    assert len({panel["title"] for panel in found}) == len(found)
    for panel in found:
        assert re.fullmatch(r"[A-Z$].{3,45}", panel["title"])
        assert len(panel["description"]) > 20 and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_query_has_a_legend_but_those_of_tables() -> None:
    assert [where for where, target in targets() if (target["format"] == "table") == bool(target["legendFormat"])] == []


def test_legends_name_labels_that_the_query_keeps() -> None:
    """A label that is summed away would be an empty place in the legend."""
    lost = []
    for where, target in targets():
        kept = re.match(
            r"(?:\(?|0 \* |label_replace\()*(?:sum|min|max|count|avg|quantile) by \(([^)]*)\)", target["expr"]
        )
        if kept:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            lost += [f"{where}: {name}" for name in named - set(re.split(r",\s*", kept[1]))]
    assert lost == []


def test_every_selector_of_a_shared_name_has_a_job() -> None:
    asked = [(where, target["expr"]) for where, target in targets()]
    asked += [(name, about["query"]) for name, about in source.variables().items() if "query" in about]
    bare = {
        where
        for where, expr in asked
        for name, selector in SHARED.findall(expr)
        if "job=" not in selector and f'"{name}' not in expr
    }
    assert bare == {"llmops-fleet: Targets that do not answer"}  # it is about all jobs


def test_windows_hold_enough_scrapes() -> None:
    """Grafana knows how often Prometheus scrapes; windows of our own are at least five minutes."""
    short = [
        f"{where}: [{window}]"
        for where, target in targets()
        for window in WINDOW.findall(target["expr"])
        if window not in ("$__rate_interval", "5m", "10m", "15m", "30m", "1h", "24h:1m", "1h:1m", "7d")
    ]
    assert short == []


def test_counters_are_only_seen_as_rates() -> None:
    bare = [
        f"{where}: {counter}"
        for where, target in targets()
        for before, counter in re.findall(r"(\w*\(?)\b([a-z_]+:?[a-z_]+_total)\b(?=[{\[])", target["expr"])
        if before not in ("rate(", "increase(")
    ]
    assert bare == []


def test_every_series_that_is_asked_for_exists() -> None:
    wanted = {name: where for where, target in targets() for name in series_names(target["expr"])}
    known = (
        scraped() | recorded() | native_histograms.NAMES | {"up", "ALERTS", "probe_success", "probe_duration_seconds"}
    )
    # their own: of the one that is asked, and of the one that it tells
    known |= {name for name in wanted if name.startswith(("prometheus_", "alertmanager_"))}
    assert {name: where for name, where in wanted.items() if name not in known} == {}


def test_every_query_finds_native_histograms_too() -> None:
    lost = {where: native_histograms.only_classic(series_names(target["expr"])) for where, target in targets()}
    assert {where: parts for where, parts in lost.items() if parts} == {}


def test_series_and_labels_of_vllm_are_those_of_the_real_one() -> None:
    ours = {"pool", "replica", "host", "model", "model_version"}
    wrong = []
    for where, target in targets():
        for name in series_names(target["expr"]):
            if not name.startswith("vllm:"):
                continue
            real = REAL.get(name) or REAL.get(re.sub(r"_(?:bucket|sum|count)$", "", name))
            if real is None:
                wrong.append(f"{where}: {name}")
                continue
            for selector in re.findall(rf"{re.escape(name)}\{{([^}}]*)\}}", target["expr"]):
                labels = set(re.findall(r"(\w+)[=!]", selector))
                wrong += [f"{where}: {name} has no {label}" for label in labels - {*real["labels"], *ours}]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_variables_that_are_used_are_defined_and_the_other_way_round(path: pathlib.Path) -> None:
    dashboard = json.loads(path.read_text())
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = path.read_text()
    used = {name for name in re.findall(r"\$\{?([a-z_]\w*)", text) if not name.startswith("__")}
    assert used == defined
    for variable in dashboard["templating"]["list"]:
        assert variable["label"] and variable["description"]
        assert variable["type"] == "datasource" or (variable["refresh"] == 2 and variable["includeAll"])


def test_every_dashboard_marks_rollouts_and_links_to_the_others() -> None:
    for path in FILES:
        dashboard = json.loads(path.read_text())
        marks = [one["expr"] for one in dashboard["annotations"]["list"] if "expr" in one]
        assert ["in_progress" in marks[0], "last_start_timestamp_seconds" in marks[1]] == [True, True]
        assert dashboard["links"][0]["tags"] == dashboard["tags"] == ["llmops"]


def test_links_lead_to_dashboards_with_the_variable_that_they_hand_on() -> None:
    found = 0
    for path, panel in itertools.chain.from_iterable(zip(itertools.repeat(path), panels(path)) for path in FILES):
        for uid, variable in re.findall(r"/d/([\w-]+)\?var-(\w+)=", json.dumps(panel)):
            there = json.loads((source.TARGET / f"{uid}.json").read_text())
            assert variable in {one["name"] for one in there["templating"]["list"]}, path
            found += 1
    assert found > 5


def test_runbooks_exist_for_alerts_that_exist() -> None:
    linked = set(re.findall(r"/runbooks/(\w+)\.md", "".join(path.read_text() for path in FILES)))
    assert linked - alerts() == set()
    assert linked - {path.stem for path in RUNBOOKS.glob("*.md")} == set()


def test_dashboards_that_alerts_name_exist() -> None:
    found = set(re.findall(r"\bdashboard: ['\"]?([\w-]+)", "".join(path.read_text() for path in RULES.glob("*.yml"))))
    assert found and found <= {path.stem for path in FILES}


def questions() -> list[tuple[str, str, str]]:
    rows = re.findall(r"^\| ([^|]+\?) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    return [(question, *place) for question, name, titles in rows for place in _places(name, titles)]


def _places(name: str, titles: str) -> Iterator[tuple[str, str]]:
    for title in titles.split("; "):
        yield re.sub(r"\[([^\]]+)\].*", r"\1", name), title


def test_every_question_of_an_operator_is_answered_by_a_panel() -> None:
    titles = {table.title: {panel.title for panel in table.panels} for table in source.dashboards()}
    asked = questions()
    assert len({question for question, _name, _title in asked}) >= 27  # those that good sets answer, and broken streams
    assert [row for row in asked if row[2] not in titles[row[1]]] == []


@pytest.mark.parametrize("table", source.dashboards(), ids=lambda table: table.name)
def test_the_page_shows_every_dashboard(table: source.Dashboard) -> None:
    picture = ROOT / "docs" / "images" / f"{table.uid}.png"
    assert f"](images/{picture.name})" in PAGE
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 150_000
