# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a rollout: one document with who did what, how long each step took, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._rollout.reading import (
    SCHEMA,
    count,
    mapping,
    mappings,
    steps,
    texts,
    timestamp,
)
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.verdict import trimmed

DONE, ROLLED_BACK, FAILED, SKIPPED, UNTOUCHED = OUTCOMES = ("done", "rolled_back", "failed", "skipped", "untouched")
UNFINISHED, NOTHING = "unfinished", "nothing"  # of a pool
# steps that take what clients and the engine take; the others are our own
WORK = ("wait", "stop", "start", "ready", "shadow", "burn_in", "watch")
_SERVED = ("release", "model", "model_revision", "version")


def record(run: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], finished: str) -> dict[str, Any]:
    """Return the document; what a run that broke off did not come to tell is empty in it."""
    told = [_entry(entry) for entry in entries]
    pools = list(dict.fromkeys([*texts(run.get("pools")), *(pool for entry in told for pool in entry["pools"])]))
    whole = _outcome(told)
    began, ended = timestamp(run.get("started")), timestamp(finished)
    return {
        "schema": SCHEMA,
        **{name: str(run.get(name) or "") for name in ("ident", "action", "who", "started")},
        "finished": str(finished),
        "seconds": None if began is None or ended is None else round(max(0.0, ended - began), 1),
        "pools": pools,
        "options": dict(mapping(run.get("options"))),
        "outcome": FAILED if whole == UNFINISHED else whole,
        "pool_outcomes": {pool: _outcome([entry for entry in told if pool in entry["pools"]]) for pool in pools},
        "entries": told,
    }


def _outcome(entries: Iterable[Mapping[str, Any]]) -> str:
    """Of a pool or of all. A run that ended before an entry's turn has left the pool half way, and is no success."""
    found = {entry["outcome"] for entry in entries}
    if found & {FAILED, ROLLED_BACK}:
        return FAILED
    return UNFINISHED if UNTOUCHED in found else DONE if DONE in found else NOTHING


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    took = steps(entry)
    outcome, reason = entry.get("outcome"), str(entry.get("reason") or "").strip()
    if outcome not in OUTCOMES:  # the connection was lost: neither rescue nor always had the word
        outcome = FAILED if took else UNTOUCHED
        reason = reason or (f"it ended without a word after the step {list(took)[-1]}" if took else "")
    verdicts = {name: trimmed(result) for name, result in mapping(entry.get("verdicts")).items()}
    requests = mapping(entry.get("requests"))
    return {
        "id": str(entry.get("id") or ""),
        "host": str(entry.get("host") or ""),
        "pools": texts(entry.get("pools")),
        "batch": count(entry.get("batch")),
        **{name: _true(entry.get(name)) for name in ("canary", "interrupted", "drained_now")},
        **{side: _served(entry.get(side)) for side in ("from", "to")},
        "differences": [dict(difference) for difference in mappings(entry.get("differences"))],
        "outcome": outcome,
        "reason": reason,
        "steps": [{"name": name, "seconds": round(seconds, 1)} for name, seconds in took.items()],
        "seconds": round(sum(took.values()), 1),
        "overhead_seconds": round(sum(seconds for name, seconds in took.items() if name not in WORK), 1),
        "verdicts": {name: verdict for name, verdict in verdicts.items() if verdict is not None},
        "requests": {name: count(requests.get(name)) for name in ("seen", "cut")},
    }


def _served(side: Any) -> dict[str, str]:
    return {name: str(value) for name, value in mapping(side).items() if name in _SERVED and value}


def _true(value: Any) -> bool:
    return str(value).lower() == "true"  # templates of old ansible-core may have made it a text
