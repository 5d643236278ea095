"""Rules as data: generated files are current, names exist, every alert is proven both ways and has its runbook."""

from __future__ import annotations

import collections
import json
import pathlib
import re

import pytest
import yaml

from tests import native_histograms
from tests.repo import markdown_pages
from tests.rules.cases import all_cases
from tools.rules import source
from tools.rules.source import Rule

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARD_FILES = ROOT / "roles" / "llm_monitoring" / "files" / "dashboards"
RULES = source.all_rules()
ALERTS = [rule for rule in RULES if rule.is_alert]
CASES = all_cases()
VLLM = {
    name
    for name in (ROOT / "tests" / "data" / "vllm_metrics_0.32.0.txt").read_text().splitlines()
    if not name.startswith("#")
}
TTFT = json.loads((ROOT / "tests" / "fakes" / "vllm" / "metrics_0.32.json").read_text())[
    "vllm:time_to_first_token_seconds"
]
SCRAPE_SECONDS = 10
DASHBOARDS = {f"llmops-{name}" for name in "fleet replica latency gpu cost balancer rollout".split()}
# What recorded series and alerts may be made of, besides vLLM's names: by the exporter that tells it.
OTHERS = re.compile(
    r"up|ALERTS|probe_\w+|nginx_\w+|mtail_\w+|node_\w+|nvidia_smi_\w+|DCGM_\w+|llmops_\w+"
    r"|(?:prometheus|alertmanager|blackbox_exporter)_\w+"
)


def seconds(duration: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


@pytest.mark.parametrize("group", source.GROUPS)
def test_generated_file_is_current(group: str) -> None:
    current = (source.TARGET / f"llmops_{group}.yml").read_text()
    assert current == source.text(group), "run python -m tools.rules"
    long = [line for line in current.splitlines() if len(line) > 120 and " " in line.strip()]
    assert long == []


def test_no_other_files_are_shipped() -> None:
    assert {path.name for path in source.TARGET.iterdir()} == {f"llmops_{group}.yml" for group in source.GROUPS}


def test_no_name_is_dead() -> None:
    """Every name is recorded here, told by the pinned vLLM (its native histograms included), or by an exporter."""
    recorded = {rule.name for rule in RULES if not rule.is_alert}
    asked = set().union(*(source.series_names(rule.body["expr"]) for rule in RULES))
    known = recorded | VLLM | native_histograms.NAMES
    assert sorted(name for name in asked - known if not OTHERS.fullmatch(name)) == []
    assert native_histograms.only_classic(asked) == set()
    assert len(asked & VLLM) > 20, "names are no longer found in expressions"


def test_names_are_found_in_expressions() -> None:
    expression = 'sum by (p) (rate(a:b{le=~"1|x",y="z"}[5m])) / on (p) group_left () (c offset 20s) > bool 1e6 * 24h'
    assert source.series_names(expression) == {"a:b", "c"}


def test_limits_of_the_first_token_are_the_same_borders_everywhere() -> None:
    """Of native histograms each stands in the expression; the alert and its runbook say which are good."""
    expr = next(rule.body["expr"] for rule in RULES if rule.name == "pool:vllm_ttft_fast:rate5m")
    compared = re.findall(r"histogram_fraction\(0, ([\d.]+),.*?==\s+([\d.]+)$", expr, re.MULTILINE | re.DOTALL)
    assert [border for border, limit in compared if border != limit] == []
    borders = [border for border, _limit in compared]
    assert {float(border) for border in borders} <= {float(border) for border in TTFT["le"]}
    told = next(rule.body["annotations"]["description"] for rule in ALERTS if rule.name == "LLMLimitBetweenBuckets")
    words = re.sub(r"\s+", " ", told + (RUNBOOKS / "LLMLimitBetweenBuckets.md").read_text())
    assert words.count(f"{', '.join(borders[:-1])} or {borders[-1]}") == 2


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_windows_hold_four_scrapes(rule: Rule) -> None:
    """Prometheus 3 leaves the left end of a range out: a short one would hold a sample less there."""
    windows = re.findall(r"\[(\w+)[\]:]", rule.body["expr"])
    assert [window for window in windows if seconds(window) < 4 * SCRAPE_SECONDS] == []


def test_at_most_twelve_alerts_page() -> None:
    assert len({rule.name for rule in ALERTS if rule.severity == "page"}) <= 12
    assert {rule.name for rule in ALERTS if rule.severity == "none"} == {"Watchdog"}


def test_names_of_alerts_are_ours() -> None:
    assert [rule.name for rule in ALERTS if not re.fullmatch("LLM[A-Za-z0-9]+|Watchdog", rule.name)] == []


def test_crash_and_frozen_engine_page_in_time() -> None:
    """Up to one scrape until it is seen, up to one evaluation, then the wait; a frozen engine has to stand for 20 s."""
    wait = {rule.name: seconds(rule.body["for"]) + seconds(rule.interval) for rule in ALERTS if "for" in rule.body}
    assert SCRAPE_SECONDS + wait["LLMReplicaDown"] <= 40
    assert SCRAPE_SECONDS + 20 + wait["LLMEngineStuck"] <= 50
    assert wait["LLMPoolDown"] < wait["LLMReplicaDown"], "what inhibits must fire first"


def test_every_alert_is_shown_firing_and_quiet() -> None:
    fires, quiet = collections.Counter(), collections.Counter()
    for case in CASES:
        key = (case.rule.name, *sorted(case.rule.labels.items()))
        fires[key] += case.fires
        quiet[key] += case.stays_quiet
    keys = [(rule.name, *sorted(rule.labels.items())) for rule in ALERTS]
    assert [key for key in keys if not fires[key]] == []
    assert [key for key in keys if not quiet[key] and key[0] != "Watchdog"] == []


def test_cases_are_told_apart() -> None:
    told = collections.Counter((case.rule.name, *case.rule.labels.values(), case.text) for case in CASES)
    assert [key for key, number in told.items() if number > 1] == []


@pytest.mark.parametrize("name", sorted({rule.name for rule in ALERTS}))
def test_alert_leads_to_its_runbook_and_a_dashboard(name: str) -> None:
    for rule in ALERTS:
        if rule.name == name:
            told = rule.body["annotations"]
            assert told["runbook_url"] == f"https://github.com/llmops/vllm/tree/main/docs/runbooks/{name}.md"
            assert told["dashboard"] in DASHBOARDS
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert re.findall(r"^#+ .*", page, re.MULTILINE) == [
        f"# {name}",
        "## What it means",
        "## How to confirm",
        "## What to do first",
        "## When to escalate",
    ]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_alert_leads_to_a_panel_which_leads_to_its_runbook(rule: Rule) -> None:
    told = rule.body["annotations"]
    dashboard = json.loads((DASHBOARD_FILES / f"{told['dashboard']}.json").read_text())
    (panel,) = (panel for panel in dashboard["panels"] if panel["id"] == int(told["panel"]))
    assert told["runbook_url"] in {link["url"] for link in panel.get("links", [])}, panel["title"]


def test_a_panel_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "panel_ids", lambda uid: {"Others": 2})
    told = "cost.yml: LLMDailyBudget80: llmops-cost has no panel Of today's budget"
    with pytest.raises(source.SourceError, match=told):
        source.rules("cost")


def test_index_names_every_runbook_and_nothing_else() -> None:
    linked = {target for target in markdown_pages.links(RUNBOOKS / "README.md") if "/" not in target}
    assert linked == {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}


def test_index_says_who_is_told() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(\w+\.md\) \| (\w+)", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    told: dict[str, set[str]] = {}
    for rule in ALERTS:
        told.setdefault(rule.name, set()).add(rule.severity)
    worst = {name: min(severities, key=source.SEVERITIES.index) for name, severities in told.items()}
    assert dict(rows) == worst


def test_queries_of_the_runbooks_ask_for_names_that_exist() -> None:
    known = {rule.name for rule in RULES if not rule.is_alert} | VLLM | native_histograms.NAMES
    dead = {}
    for page in RUNBOOKS.glob("*.md"):
        for query in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            asked = source.series_names(query)
            unknown = {name for name in asked - known if not OTHERS.fullmatch(name)}
            if unknown := unknown | native_histograms.only_classic(asked):
                dead[page.name] = unknown
    assert dead == {}


def test_words_that_are_missing_are_named() -> None:
    with pytest.raises(source.SourceError, match="<windwo> is no word"):
        list(source.repeated({"expr": "rate(a[<windwo>])", "each": {"window": ["5m"]}}, {}))


def test_each_makes_every_combination() -> None:
    written = {"expr": "<a><b><c>", "each": {"of": [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "c": [5, 6]}}
    assert [one["expr"] for one in source.repeated(written, {})] == ["125", "126", "345", "346"]


def test_sources_are_what_is_read() -> None:
    assert {path.stem for path in source.PLACE.glob("*.yml")} == {*source.GROUPS, "words"}
    for group in source.GROUPS:
        assert set(yaml.safe_load((source.PLACE / f"{group}.yml").read_text())) <= {
            "interval", "dashboard", "words", "record", "alerts",
        }  # fmt: skip
