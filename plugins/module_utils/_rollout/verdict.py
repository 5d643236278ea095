# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a record keeps of the results of vllm_golden, vllm_shadow and vllm_canary: the verdict and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._rollout.reading import (
    count,
    mapping,
    mappings,
    number,
    texts,
)

_CHECK = ("name", "result", "new", "old", "samples_new", "samples_old")
_SHOWN = 10  # prompts that failed
_LONGEST = 300  # characters of a reason


def trimmed(result: Any) -> dict[str, Any] | None:
    """Return the essence of a result; None for one that judged nothing, such as that of a task that was skipped.

    Answers to golden prompts are left out: a record is read by more people than prompts are.
    """
    told = mapping(result)
    broken = bool(told.get("failed") or told.get("unreachable"))
    if told.get("skipped") or not (broken or "verdict" in told or "ok" in told):
        return None
    if "asked" in told:
        return _golden(told)
    verdict = str(told.get("verdict") or "failed")
    checks = list(mappings(told.get("checks")))
    reasons = [str(check.get("words")) for check in checks if check.get("result") == verdict and check.get("words")]
    message = short(told.get("msg")).removeprefix(f"{verdict.replace('_', ' ')}: ")
    return {
        "verdict": verdict,
        "reasons": [short(reason) for reason in dict.fromkeys(reasons)] or [message],
        "samples": {side: count(mapping(told.get(side)).get("requests")) for side in ("new", "old")},
        "checks": [{name: check.get(name) for name in _CHECK} for check in checks],
        "notes": [short(note) for note in texts(told.get("notes"))],
        "seconds": number(told.get("elapsed")),
    }


def _golden(told: Mapping[str, Any]) -> dict[str, Any]:
    asked, passed = count(told["asked"]), count(told.get("passed"))
    unmet = [f"{failure.get('name')}: {failure.get('expectation')}" for failure in mappings(told.get("failures"))]
    more = [f"and {len(unmet) - _SHOWN} more"] if len(unmet) > _SHOWN else []
    return {
        "verdict": "passed" if told.get("ok") else "failed",
        "reasons": [f"{passed} of {asked} answers as expected", *unmet[:_SHOWN], *more],
        "samples": {"new": asked, "old": 0},
        "checks": [],
        "notes": [],
        "seconds": number(told.get("elapsed")),
    }


def short(text: Any) -> str:
    """Return the first line of a text, no longer than a person reads."""
    lines = str(text or "no reason was given").strip().splitlines()
    return lines[0][:_LONGEST]
