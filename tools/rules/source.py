"""Reads the sources of the rules and writes them out: one file of Prometheus for each.

A source is one YAML file, ``<group>.yml``:

``interval``, ``dashboard``
    how often the group is evaluated, and the dashboard that its alerts point to.
``words``
    texts that stand for ``<name>`` in the rules below; those of ``words.yml`` hold in every file.
``record``, ``alerts``
    the rules. ``each`` repeats a rule: for the entries of a list, each of which is a mapping of words, or for every
    combination of several such lists. A rule's own ``interval`` or ``dashboard`` takes precedence. An alert names by
    its title the ``panel`` of the dashboard that shows it.

An expression has one condition a line: a line that begins with ``and``, ``or`` or ``unless`` can be left out, and the
gate of the rules leaves each out to see whether a case notices.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tools.dashboards.build import panel_ids

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = pathlib.Path(__file__).resolve().parent
TARGET = ROOT / "roles" / "llm_monitoring" / "files" / "rules"
GROUPS = "health saturation errors latency slo balancer gpu cost rollout host meta".split()
SEVERITIES = ("page", "ticket", "none")
HEAD = "# Made by `python -m tools.rules` from tools/rules/{group}.yml: change it there.\n---\n"

_WORD = re.compile(r"<([a-z][a-z0-9_]*)>")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_:]*")
# What is no name of a series: texts, labels in braces or behind by, on and the like, words of the language, calls.
_NO_NAMES = re.compile(
    r'"(?:[^"\\]|\\.)*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)'
    r"|\b\d+(?:\.\d+)?(?:ms|[smhdwy])\b|\b\d+e\d+\b|@ end\(\)|\b\w+(?=\s*\()"
)
_LANGUAGE = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
_LANGUAGE |= {"sum", "min", "max", "avg", "count", "group", "quantile", "count_values", "inf", "nan"}


class SourceError(Exception):
    """A source that cannot be used; the message names the file, the rule and what is wrong."""


@dataclass(frozen=True)
class Rule:
    """One rule as Prometheus gets it, and the group and interval in which it is evaluated."""

    group: str
    interval: str
    body: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """The alert's name, or the name of the series."""
        return str(self.body.get("alert") or self.body["record"])

    @property
    def is_alert(self) -> bool:
        """Whether it alerts."""
        return "alert" in self.body

    @property
    def labels(self) -> dict[str, str]:
        """Labels that the rule sets."""
        return dict(self.body.get("labels", {}))

    @property
    def severity(self) -> str:
        """Who is told: ``page``, ``ticket`` or ``none``."""
        return self.labels["severity"]


def runbooks_address() -> str:
    """Return the address of the runbooks: below the documentation that galaxy.yml names."""
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    return f"{galaxy['documentation']}/runbooks"


def rules(group: str) -> list[Rule]:
    """Return the rules of a group, series first, in the order of the source."""
    source = yaml.safe_load((PLACE / f"{group}.yml").read_text())
    common = yaml.safe_load((PLACE / "words.yml").read_text())
    words = {**common, **source.get("words", {})}
    return [
        make(group, source, filled)
        for kind, make in (("record", _record), ("alerts", _alert))
        for written in source.get(kind, [])
        for filled in repeated(written, words)
    ]


def all_rules() -> list[Rule]:
    """Return the rules of all groups."""
    return [rule for group in GROUPS for rule in rules(group)]


def repeated(written: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[Any]:
    """Yield an entry once for each combination of its ``each``, with words in their places."""
    for chosen in _combinations(written.get("each", {})):
        yield _filled(written, {**words, **chosen})


def series_names(expression: str) -> set[str]:
    """Return the names of the series that an expression asks for."""
    bare = _NO_NAMES.sub(" ", "\n".join(line.partition("#")[0] for line in expression.splitlines()))
    return set(_NAME.findall(bare)) - _LANGUAGE


def text(group: str) -> str:
    """Return the file of a group as Prometheus reads it."""
    groups: dict[str, dict[str, Any]] = {}
    default = yaml.safe_load((PLACE / f"{group}.yml").read_text())["interval"]
    for rule in rules(group):
        name = f"llmops_{group}" + ("" if rule.interval == default else f"_{rule.interval}")
        groups.setdefault(name, {"name": name, "interval": rule.interval, "rules": []})["rules"].append(rule.body)
    return HEAD.format(group=group) + dumped({"groups": list(groups.values())})


def dumped(content: Any) -> str:
    """Return YAML as the house writes it: lists indented, texts of several lines as they are."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _record(group: str, source: Mapping[str, Any], written: Mapping[str, Any]) -> Rule:
    body = {"record": written["record"], "expr": _folded(written["expr"])}
    if "labels" in written:
        body["labels"] = written["labels"]
    return Rule(group, written.get("interval", source["interval"]), body)


def _alert(group: str, source: Mapping[str, Any], written: Mapping[str, Any]) -> Rule:
    if written["severity"] not in SEVERITIES:
        raise SourceError(f"{group}.yml: {written['alert']}: severity is one of {', '.join(SEVERITIES)}")
    body: dict[str, Any] = {"alert": written["alert"], "expr": _folded(written["expr"])}
    if "for" in written:
        body["for"] = written["for"]
    body["labels"] = {"severity": written["severity"], "group": group, **written.get("labels", {})}
    dashboard = written.get("dashboard", source["dashboard"])
    panels = panel_ids(dashboard)
    if written["panel"] not in panels:
        raise SourceError(f"{group}.yml: {written['alert']}: {dashboard} has no panel {written['panel']}")
    body["annotations"] = {
        "summary": written["summary"],
        "description": " ".join(written["description"].split()),
        "runbook_url": f"{runbooks_address()}/{written['alert']}.md",
        "dashboard": dashboard,
        "panel": str(panels[written["panel"]]),
    }
    return Rule(group, written.get("interval", source["interval"]), body)


def _folded(expression: str) -> str:
    """Return an expression in lines that fit into the file; what a line goes on with stands further in."""
    lines = []
    for line in expression.strip().splitlines():
        further = " " * (len(line) - len(line.lstrip()) + 2)
        lines += textwrap.wrap(line, 106, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _combinations(each: Mapping[str, list[Any]] | list[Any]) -> Iterator[dict[str, str]]:
    """Yield the words of each repetition: one entry of every list. An entry is a value, or several words at once."""
    lists = each if isinstance(each, dict) else {"entry": each} if each else {}
    for chosen in itertools.product(*lists.values()):
        words: dict[str, str] = {}
        for name, entry in zip(lists, chosen):
            several = entry if isinstance(entry, dict) else {name: entry}
            words.update({key: str(value) for key, value in several.items()})
        yield words


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """Return a rule with its words in their places, those inside of words included."""
    if isinstance(value, dict):
        return {_filled(name, words): _filled(inner, words) for name, inner in value.items() if name != "each"}
    if isinstance(value, list):
        return [_filled(inner, words) for inner in value]
    if not isinstance(value, str):
        return value
    while _WORD.search(value):
        missing = [name for name in _WORD.findall(value) if name not in words]
        if missing:
            raise SourceError(f"<{missing[0]}> is no word: {value.strip()[:100]}")
        value = _WORD.sub(lambda found: str(words[found[1]]).strip(), value)
    return value


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _literal(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _literal)
