# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of a rollout in words: how it ended, where, why, and what to do next."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._rollout.record import DONE, FAILED, OUTCOMES, ROLLED_BACK
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.times import duration
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.verdict import short

OPTION = "llmops_rollout_"  # what variables begin with that a rollout is asked for with
_PLAYBOOKS = {"update": "rollout"}  # of an action, where it is not its name


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return the lines; what somebody must do comes last, where a terminal ends."""
    entries: Sequence[Mapping[str, Any]] = record["entries"]
    lines = [_headline(record)]
    for pool in record["pools"]:
        lines += _pool(pool, record["pool_outcomes"][pool], [entry for entry in entries if pool in entry["pools"]])
    for entry in entries:
        lines += _entry(entry)
    return [*lines, *_drained(entries), *_next(record)]


def _headline(record: Mapping[str, Any]) -> str:
    words = {DONE: "done", FAILED: "FAILED"}.get(record["outcome"], "had nothing to do")
    took = f"in {duration(record['seconds'])}, {record['started']} to {record['finished']}"
    what = f"{record['action']} of {', '.join(record['pools']) or 'no pool'} by {record['who']}"
    return f"Rollout {record['ident']} {words}: {what} {took}"


def _pool(pool: str, outcome: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    counts = {word: sum(entry["outcome"] == word for entry in entries) for word in OUTCOMES}
    told = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in counts.items() if count)
    yield f"Pool {pool}: {outcome}{f' ({told})' if told else ''}"
    found = (_change(difference) for entry in entries for difference in entry["differences"])
    if changes := list(dict.fromkeys(found)):
        yield f"    changed: {'; '.join(changes)}"


def _change(difference: Mapping[str, Any]) -> str:
    before, after = (difference.get(side) for side in ("before", "after"))
    return f"{difference.get('name')} {_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    return "(not set)" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _entry(entry: Mapping[str, Any]) -> Iterator[str]:
    bad = entry["outcome"] in (FAILED, ROLLED_BACK)
    outcome = entry["outcome"].replace("_", " ")
    words = [outcome.upper() if bad else outcome]
    words += [word for word in ("canary", "interrupted") if entry[word]]
    before, after = (entry[side].get("release") for side in ("from", "to"))
    if before or after:
        words.append(f"release {before or 'none'} -> {after or 'none'}" if before != after else f"release {after}")
    took = ", ".join(f"{step['name']} {duration(step['seconds'])}" for step in entry["steps"])
    if took:
        words.append(f"{duration(entry['seconds'])} ({took})")
    yield f"{entry['id']}: {', '.join(words)}"
    if entry["reason"]:
        yield f"    why: {short(entry['reason'])}"
    for name, verdict in entry["verdicts"].items():
        yield f"    {name}: {verdict['verdict'].replace('_', ' ')}: {'; '.join(verdict['reasons'])}"
        # a record of an older version of the collection has none
        yield from (f"        {note}" for note in verdict.get("notes", []))
    requests = entry["requests"]
    if any(requests.values()):
        yield f"    requests: {requests['seen']} seen, {requests['cut']} cut"


def _drained(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    left = [entry["id"] for entry in entries if entry["drained_now"]]
    if left:
        ids = ",".join(left)
        yield f"LEFT DRAINED, clients do not reach it: {', '.join(left)}"
        yield "    The next rollout mends it. To put it back by hand, once it answers:"
        yield f"    ansible-playbook llmops.vllm.undrain -e {shlex.quote(f'llmops_target={ids}')}"


def _next(record: Mapping[str, Any]) -> Iterator[str]:
    if record["outcome"] != FAILED:
        return
    outcomes = {entry["outcome"] for entry in record["entries"]}
    broken = bool(outcomes & {FAILED, ROLLED_BACK})
    # a release that failed is refused until somebody says that the cause is mended
    retry = {f"{OPTION}retry": "true"} if broken and record["action"] == "update" else {}
    asked = {name: value for name, value in record["options"].items() if name.startswith(OPTION) and _given(value)}
    words = ["ansible-playbook", f"llmops.vllm.{_PLAYBOOKS.get(record['action'], record['action'])}"]
    for name, value in {**asked, **retry}.items():
        words += ["-e", shlex.quote(_extra(name, value))]
    why = "mend the cause, then run" if broken else "what is untouched is done by"
    yield f"Next: {why}: {' '.join(words)}"


def _given(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", [], {})


def _extra(name: str, value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[\w./,:@+-]+", value)  # spaces would part it in two
    return f"{name}={value}" if plain else json.dumps({name: value})
