# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits that alerts compare with: those of the collection, of a profile, and of a pool, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import _fleet
from .._check.problem import Problem, kind_of, suggest

VARIABLE = "llmops_limits"
DEFAULTS: dict[str, float] = {
    "ttft_p99_seconds": 1,
    "itl_p99_seconds": 0.1,
    "e2e_p99_seconds": 60,
    "error_ratio": 0.01,
    "queue_seconds": 1,
    "slo_availability": 0.995,
    "slo_ttft": 0.99,
}
# Where the default would be an alarm for what the profile is made for. All are boundaries of vLLM's buckets, so that
# percentiles at the limit are measured and not interpolated.
PROFILES: dict[str, dict[str, float]] = {
    "long_context": {"ttft_p99_seconds": 5, "e2e_p99_seconds": 120},  # tens of thousands of tokens are read first
    "batch": {"ttft_p99_seconds": 20, "itl_p99_seconds": 0.2, "e2e_p99_seconds": 480, "queue_seconds": 20},
}
_RATIOS = ("error_ratio", "slo_availability", "slo_ttft")
# A budget of errors that burns 14.4 times too fast is what pages: beyond 1 / 14.4 nothing ever does.
_LEAST = {"slo_availability": 0.94, "slo_ttft": 0.94}
_SECTIONS = ("defaults", "profiles", "pools")


def limits(variables: Mapping[str, Any], pool: str, profile: str) -> dict[str, float]:
    """Return the limits of a pool; what ``problems`` names is left out."""
    given = _fleet.setting(variables, VARIABLE, {})
    sections = [
        _mapping(given, "defaults"),
        PROFILES.get(profile, {}),
        _mapping(_mapping(given, "profiles"), profile),
        _mapping(_mapping(given, "pools"), pool),
    ]
    found = dict(DEFAULTS)
    for section in sections:
        found.update({key: float(value) for key, value in section.items() if key in DEFAULTS and _good(key, value)})
    return found


def problems(host: str, variables: Mapping[str, Any], pools: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with the limits that a host has; ``pools`` are those of the fleet."""
    given = _fleet.setting(variables, VARIABLE, {})
    if not isinstance(given, Mapping):
        yield _no_mapping(host, VARIABLE, given)
        return
    for name in given:
        if name not in _SECTIONS:
            text = f"is no part of the limits{suggest(name, _SECTIONS)}: known are {', '.join(_SECTIONS)}"
            yield Problem(host, f"{VARIABLE}.{name}", "", text)
    yield from _entries(host, f"{VARIABLE}.defaults", given.get("defaults"))
    for section, what, known in (("profiles", "profile", _fleet.PROFILES), ("pools", "pool", pools)):
        entries = given.get(section)
        if entries is not None and not isinstance(entries, Mapping):
            yield _no_mapping(host, f"{VARIABLE}.{section}", entries)
            continue
        for name, entry in (entries or {}).items():
            if name not in known:
                text = f"names a {what} that is not there{suggest(name, known)}: there are {', '.join(known)}"
                yield Problem(host, f"{VARIABLE}.{section}.{name}", "", text)
            yield from _entries(host, f"{VARIABLE}.{section}.{name}", entry)


def _entries(host: str, where: str, entry: Any) -> Iterator[Problem]:
    if entry is not None and not isinstance(entry, Mapping):
        yield _no_mapping(host, where, entry)
        return
    for key, value in (entry or {}).items():
        if key not in DEFAULTS:
            text = f"is no limit{suggest(key, DEFAULTS)}: known are {', '.join(DEFAULTS)}"
            yield Problem(host, f"{where}.{key}", repr(value), text)
        elif not _good(key, value):
            wanted = "a share between 0 and 1" if key in _RATIOS else "seconds above 0"
            if key in _LEAST:
                wanted = f"a share of {_LEAST[key]} or more and below 1 (of less no hour can use up too much)"
            yield Problem(host, f"{where}.{key}", repr(value), f"is {value!r}: give {wanted}")


def _good(key: str, value: Any) -> bool:
    number = _fleet.as_float(value)
    return number is not None and number > 0 and number >= _LEAST.get(key, 0) and (key not in _RATIOS or number < 1)


def _mapping(given: Any, name: str) -> Mapping[str, Any]:
    found = given.get(name) if isinstance(given, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _no_mapping(host: str, variable: str, value: Any) -> Problem:
    example = "{pools: {chat: {ttft_p99_seconds: 2}}}"
    return Problem(host, variable, kind_of(value), f"is {kind_of(value)}: give a mapping, such as {example}")
