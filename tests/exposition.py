"""Reads texts of metrics as strictly as Prometheus and its textfile collector do, with rules of promtool's linter."""

from __future__ import annotations

import re

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_VALUE = r'"((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
_LABEL = rf"([a-zA-Z_][a-zA-Z0-9_]*)={_VALUE}"
_LABELS = rf"\{{(?P<labels>{_LABEL}(?:,{_LABEL})*)\}}"
_HELP = re.compile(rf"# HELP ({_NAME}) (\S.*)")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (gauge|counter)")
_SAMPLE = re.compile(rf"(?P<name>{_NAME})(?:{_LABELS})? (?P<value>-?[0-9.]+(?:e[+-]?[0-9]+)?)")
_ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_NO_BASE_UNIT = ("_ms", "_milliseconds", "_minutes", "_hours", "_percent", "_kilobytes", "_timestamp")

Labels = frozenset[tuple[str, str]]


def samples(text: str) -> dict[str, dict[Labels, float]]:
    """Return the values by name and labels; ValueError for what Prometheus would refuse or promtool would tell."""
    found: dict[str, dict[Labels, float]] = {}
    helped = typed = ""
    if text and not text.endswith("\n"):
        raise ValueError("the last line does not end")
    for line in text.split("\n")[:-1]:
        if told := _HELP.fullmatch(line):
            helped = told[1]
            if helped in found:
                raise ValueError(f"a second HELP of {helped}")
            if typed and not found[typed]:
                raise ValueError(f"{typed} has no sample")
        elif told := _TYPE.fullmatch(line):
            typed = told[1]
            if typed != helped or typed in found:
                raise ValueError(f"TYPE without its HELP before it: {line}")
            _lint(typed, told[2])
            found[typed] = {}
        elif told := _SAMPLE.fullmatch(line):
            if told["name"] != typed or typed != helped:
                raise ValueError(f"not below its HELP and TYPE: {line}")
            pairs = [(name, _unescaped(value)) for name, value in re.findall(_LABEL, told["labels"] or "")]
            labels = frozenset(pairs)
            if len(dict(pairs)) < len(pairs) or labels in found[typed]:
                raise ValueError(f"twice: {line}")
            found[typed][labels] = float(told["value"])
        else:
            raise ValueError(f"no line of a text of metrics: {line}")
    if any(not values for values in found.values()) or helped != typed:
        raise ValueError(f"{helped} has no sample")
    return found


def _lint(name: str, kind: str) -> None:
    if (kind == "counter") != name.endswith("_total"):
        raise ValueError(f"{name}: _total is the end of counters, and of them alone")
    if name.endswith(("_sum", "_count", "_bucket", *_NO_BASE_UNIT)) or re.search(r"[A-Z]", name):
        raise ValueError(f"{name}: not named as Prometheus names a {kind}")


def _unescaped(value: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: _ESCAPED[found[0]], value)
