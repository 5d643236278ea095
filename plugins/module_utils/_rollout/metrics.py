# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts as metrics: texts for the textfile collector of the node exporter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.exposition import Sample, text
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.reading import (
    entries,
    mapping,
    number,
    readable,
    steps,
    texts,
    timestamp,
)
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.record import DONE, NOTHING, OUTCOMES, ROLLED_BACK

# The last rollout of each pool; the samples are made below. All are gauges: they tell of one rollout, and start anew.
LAST = {
    "llmops_rollout_last_start_timestamp_seconds": "When the last rollout of the pool began, in seconds since 1970.",
    "llmops_rollout_last_end_timestamp_seconds": "When the last rollout of the pool ended, in seconds since 1970.",
    "llmops_rollout_last_duration_seconds": "How long the last rollout of the pool took, with the other pools in it.",
    "llmops_rollout_last_result": "1 when the last rollout did all of the pool or had nothing to do, else 0.",
    "llmops_rollout_last_replicas": "Replicas (at a reboot: hosts) of the pool in its last rollout, by outcome.",
    "llmops_rollout_rollbacks": "Replicas of the pool that its last rollout had to send back, even in vain.",
    "llmops_rollout_step_seconds": "How long a step took in the last rollout, over all replicas of the pool.",
    "llmops_rollout_step_longest_seconds": "How long a step took at the replica where it took longest.",
    "llmops_rollout_requests_seen": "Requests of clients that were counted while the pool was rolled.",
    "llmops_rollout_requests_cut": "Requests of clients that the last rollout of the pool cut off.",
}
# In a file of its own, for no name may stand in two files with other texts.
RUNNING = {
    "llmops_rollout_in_progress": "Whether a rollout of the pool runs.",
    "llmops_rollout_in_progress_start_timestamp_seconds": "When the running rollout began, in seconds since 1970.",
}


def metrics(records: Iterable[Any], pool: str = "") -> str:
    """Return the text about the last rollout of each pool, or of one; the newest record is the last."""
    last: dict[str, Mapping[str, Any]] = {}
    for record in filter(readable, records):
        last.update(dict.fromkeys(texts(record["pools"]), record))
    return _text(LAST, [sample for name in sorted(last) if pool in ("", name) for sample in _last(last[name], name)])


def progress(run: Mapping[str, Any], running: bool) -> str:
    """Return the text that says whether this rollout runs."""
    samples: list[Sample] = []
    for pool in texts(run.get("pools")):
        labels = {"pool": pool, "action": str(run.get("action"))}
        samples.append(("llmops_rollout_in_progress", labels, int(running)))
        if running:
            began = timestamp(run.get("started"))
            samples.append(("llmops_rollout_in_progress_start_timestamp_seconds", labels, began))
    return _text(RUNNING, samples)


def _last(record: Mapping[str, Any], pool: str) -> Iterator[Sample]:
    labels = {"pool": pool, "action": str(record.get("action"))}
    yield "llmops_rollout_last_start_timestamp_seconds", labels, timestamp(record.get("started"))
    yield "llmops_rollout_last_end_timestamp_seconds", labels, timestamp(record.get("finished"))
    yield "llmops_rollout_last_duration_seconds", labels, number(record.get("seconds"))
    ended = mapping(record.get("pool_outcomes")).get(pool)
    yield "llmops_rollout_last_result", labels, None if ended is None else int(ended in (DONE, NOTHING))
    own = entries(record, pool)
    for outcome in OUTCOMES:
        found = sum(entry.get("outcome") == outcome for entry in own)
        yield "llmops_rollout_last_replicas", {**labels, "outcome": outcome}, found
    took: dict[str, list[float]] = {}
    for entry in own:
        for step, seconds in steps(entry).items():
            took.setdefault(step, []).append(seconds)
    back = sum(entry.get("outcome") == ROLLED_BACK or "go_back" in steps(entry) for entry in own)
    yield "llmops_rollout_rollbacks", labels, back
    for step, values in took.items():
        yield "llmops_rollout_step_seconds", {**labels, "step": step}, sum(values)
        yield "llmops_rollout_step_longest_seconds", {**labels, "step": step}, max(values)
    for name in ("seen", "cut"):
        requests = sum(number(mapping(entry.get("requests")).get(name)) or 0 for entry in own)
        yield f"llmops_rollout_requests_{name}", labels, requests


def _text(gauges: Mapping[str, str], samples: Iterable[Sample]) -> str:
    return text(gauges, ((name, own, None if value is None else round(value, 3)) for name, own, value in samples))
