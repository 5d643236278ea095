"""Cases of the rules: compact data in the YAML files here, carried out by promtool.

A case names its ``rule`` (and ``labels``, where several have that name), says in ``case`` what happens, gives the
``series``, and says what to ``expect`` at which times: of an alert the list of those that fire, by their labels and
``summary``; of a recording rule its samples. ``each`` repeats a case as it does a rule. Evaluated is only that rule,
with the recorded series that it needs and the case does not give. Samples are ``interval`` apart (default: that of the
group), and so are evaluations, unless ``evaluate`` says otherwise. ``promtool`` names the one version that knows it.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tools.rules.source import GROUPS, Rule, all_rules, dumped, repeated, series_names

PLACE = pathlib.Path(__file__).resolve().parent
_SAMPLES_ROUNDED_TO = "1e-4"


@dataclass(frozen=True)
class Case:
    """What is given, and what is to come of it."""

    rule: Rule
    text: str
    interval: str
    evaluate: str
    version: str
    series: Mapping[str, str]
    expect: Mapping[str, Any]

    @property
    def fires(self) -> bool:
        return any(self.expect.values())

    @property
    def stays_quiet(self) -> bool:
        return not all(self.expect.values())


def all_cases(version: str = "") -> list[Case]:
    """Return the cases of all groups; with ``version``, those that this promtool understands."""
    rules = all_rules()
    cases = [case for group in GROUPS for case in _cases(group, rules)]
    return [case for case in cases if not version or case.version in ("", version)]


class _Texts(yaml.SafeLoader):
    """Reads every scalar as a text: ``0x30`` is a zero that comes thirty times more, not the number 48."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag == "tag:yaml.org,2002:merge"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _cases(group: str, rules: list[Rule]) -> Iterator[Case]:
    for written in yaml.load((PLACE / f"{group}.yml").read_text(), _Texts)["cases"]:
        for filled in repeated(written, {}):
            wanted = filled.get("labels", {})
            found = [
                rule
                for rule in rules
                if (rule.group, rule.name) == (group, filled["rule"]) and wanted.items() <= rule.labels.items()
            ]
            assert len(found) == 1, f"{group}.yml: {filled['rule']} {wanted} names {len(found)} rules"
            interval = filled.get("interval", found[0].interval)
            evaluate = filled.get("evaluate", interval)
            version = filled.get("promtool", "")
            yield Case(found[0], filled["case"], interval, evaluate, version, filled["series"], filled["expect"])


def failures(
    promtool: pathlib.Path, place: pathlib.Path, runs: Mapping[str, tuple[Case, Mapping[str, Any]]]
) -> dict[str, str]:
    """Return what promtool says of the runs that fail: each is a case, and its rule's body or that of a mutant."""
    rules = all_rules()
    for name, (case, body) in runs.items():
        (place / f"{name}.rules.yml").write_text(dumped(_rule_file(case, body, rules)))
        (place / f"{name}.yml").write_text(dumped(_test_file(f"{name}.rules.yml", case, body)))
    command = [promtool, "test", "rules", *(f"{name}.yml" for name in runs)]
    done = subprocess.run(command, cwd=place, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    verdicts = re.findall(r"^  (SUCCESS|FAILED:)(.*?)(?=^  (?:SUCCESS|FAILED:)|\Z)", done.stdout, re.M | re.S)
    assert len(verdicts) == len(runs), done.stdout[-3000:]
    return {name: told for name, (verdict, told) in zip(runs, verdicts) if verdict != "SUCCESS"}


def _rule_file(case: Case, body: Mapping[str, Any], rules: Iterable[Rule]) -> dict[str, Any]:
    """The rule after the recorded series that it leans on, these in the order of evaluation."""
    given = set().union(*(series_names(series) for series in case.series))
    by_name: dict[str, list[Rule]] = {}
    for rule in rules:
        by_name.setdefault(rule.name, []).append(rule)
    needed: list[dict[str, Any]] = []

    def add(expression: str) -> None:
        for name in sorted(series_names(expression) - given):
            for rule in by_name.get(name, []):
                if rule.body not in needed and rule.body != body:
                    add(rule.body["expr"])
                    needed.append(dict(rule.body))

    add(body["expr"])
    own = {key: value for key, value in body.items() if key != "annotations"}
    if "annotations" in body:
        own["annotations"] = {"summary": body["annotations"]["summary"]}
    return {"groups": [{"name": "case", "rules": [*needed, own]}]}


def _test_file(rule_file: str, case: Case, body: Mapping[str, Any]) -> dict[str, Any]:
    test: dict[str, Any] = {
        "interval": case.interval,
        "input_series": [{"series": series, "values": _values(values)} for series, values in case.series.items()],
    }
    if case.rule.is_alert:
        test["alert_rule_test"] = [
            {"eval_time": at, "alertname": case.rule.name, "exp_alerts": [_alert(case.rule, one) for one in alerts]}
            for at, alerts in case.expect.items()
        ]
    else:
        test["promql_expr_test"] = [
            {
                "expr": f"round({_selector(case.rule)}, {_SAMPLES_ROUNDED_TO})",
                "eval_time": at,
                "exp_samples": [{"labels": labels, "value": float(value)} for labels, value in samples.items()],
            }
            for at, samples in case.expect.items()
        ]
    return {"rule_files": [rule_file], "evaluation_interval": case.evaluate, "tests": [test]}


def _values(values: str) -> str:
    """Return values as promtool takes them: ``0x30`` would be the number 48 there, too."""
    if "{{" in values:  # a native histogram
        return values
    return " ".join(re.sub(r"^([0-9.e]+)x([0-9]+)$", r"\1+0x\2", word) for word in values.split())


def _alert(rule: Rule, expected: Mapping[str, str]) -> dict[str, Any]:
    labels = {name: value for name, value in expected.items() if name != "summary"}
    return {
        "exp_labels": {**labels, **rule.labels},
        "exp_annotations": {"summary": expected["summary"]},
    }


def _selector(rule: Rule) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in rule.labels.items())
    return rule.name + (f"{{{labels}}}" if labels else "")
