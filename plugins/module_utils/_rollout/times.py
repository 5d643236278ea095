# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a rollout will take, by the step times of those before."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._rollout.reading import (
    count,
    entries,
    mapping,
    readable,
    steps,
    texts,
)

Times = dict[str, float]  # step to seconds
_CANARY, _OTHERS = "canary", "others"  # the canary has steps that others have not


def step_times(found: Iterable[Any], action: str) -> dict[str, Any]:
    """Return for each step the median in the newest record that has it, over all and by pool.

    Of records (newest last) with that action count entries that went well from begin to end: one that failed waited
    for what never came, one that was interrupted had less to do.
    """
    times: dict[tuple[str, str], Times] = collections.defaultdict(dict)
    for record in reversed(list(found)):
        if readable(record) and record.get("action") == action:
            for group, measured in _measured(record).items():
                times[group] = {**measured, **times[group]}
    pools = dict.fromkeys(pool for pool, _part in times if pool)
    parts = {pool: {part: times[pool, part] for part in (_CANARY, _OTHERS) if (pool, part) in times} for pool in pools}
    return {"steps": times.get(("", ""), {}), "pools": parts}


def _measured(record: Mapping[str, Any]) -> dict[tuple[str, str], Times]:
    seen: dict[tuple[str, str], dict[str, list[float]]] = {}
    for entry in entries(record):
        if entry.get("outcome") == "done" and not entry.get("interrupted"):
            for group in _groups(entry):
                for step, seconds in steps(entry).items():
                    seen.setdefault(group, {}).setdefault(step, []).append(seconds)
    return {
        group: {step: statistics.median(seconds) for step, seconds in measured.items()}
        for group, measured in seen.items()
    }


def _groups(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "", ""
    for pool in texts(entry.get("pools")):
        yield pool, _CANARY if entry.get("canary") else _OTHERS


def estimate(times: Mapping[str, Any], batches: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how long such batches take: members of one side by side, one batch after another, the canary first.

    ``batches`` are mappings of a ``pool`` and the sizes of its ``batches``. A pool that was never measured is taken
    for one like the others, and named in ``guessed``. Empty when nothing was measured at all.
    """
    if not times.get("steps"):
        return {}
    total: Times = {}
    guessed = []
    for planned in batches:
        pool = str(planned.get("pool"))
        own = mapping(mapping(times.get("pools")).get(pool))
        if not own:
            guessed.append(pool)
        canary = own.get(_CANARY) or own.get(_OTHERS) or times["steps"]
        others = own.get(_OTHERS) or canary
        sizes = [size for size in planned.get("batches") or [] if count(size)]
        for batch in range(len(sizes)):
            for step, seconds in (others if batch else canary).items():
                total[step] = total.get(step, 0.0) + seconds
    whole = sum(total.values())
    by_step = {step: round(seconds, 1) for step, seconds in total.items()}
    return {"seconds": round(whole, 1), "words": duration(whole), "steps": by_step, "guessed": guessed}


def duration(seconds: float | None) -> str:
    """Return seconds as a person says them."""
    if seconds is None:
        return "an unknown time"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
