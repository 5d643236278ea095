# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a benchmark is worse than the last one like it, and than what is expected.

What counts as worse passes a ratio and, for latencies, a difference too: a tenth of 5 ms is nothing that anybody sees.
The further out a percentile lies, the fewer answers decide it, so its ratio is wider; it is judged at all only when ten
answers or more lie beyond it. The ratios are chosen, not derived: run the same twice to see how steady your hosts are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .result import BUSY_CLIENT

BETTER, SAME, WORSE, INCOMPARABLE = "better", "same", "worse", "not_comparable"
TOLD = "told"  # a figure that decides nothing

THROUGHPUT_RATIO = 1.05
PERCENTILE_RATIOS = {50: 1.1, 90: 1.25, 99: 1.5}
LEAST_MS = {"ttft": 10.0, "tpot": 1.0, "itl": 1.0}
SHARE_POINTS = 2.0  # of good answers
ERROR_POINTS = 0.5  # of failed and broken ones
BEYOND = 10  # answers beyond a percentile that is judged, and the least number for a share

Record = Mapping[str, Any]

# What must be equal for two runs to be measurements of the same; as a person calls it.
_EQUAL = (
    ("profile", "profile"),
    ("recipe_digest", "recipe"),
    ("target", "target"),
    ("replicas", "number of replicas"),
    ("model", "model"),
    ("model_revision", "revision of the model"),
    ("gpu_type", "type of GPU"),
    ("gpus", "number of GPUs of a replica"),
    ("version", "version of vLLM, and so of the client,"),
)


@dataclass(frozen=True)
class Row:
    """One figure beside another one; ``ratio`` is now divided by then."""

    name: str
    now: float
    then: float
    ratio: float | None
    result: str
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """All figures, what follows from them, and the run that was looked at (None: there is none)."""

    verdict: str
    reason: str
    rows: Sequence[Row] = ()
    other: Record | None = None

    def data(self) -> dict[str, Any]:
        """As it is stored."""
        other = {name: (self.other or {}).get(name, "") for name in ("time", "release", "version")}
        rows = [asdict(row) for row in self.rows]
        return {"verdict": self.verdict, "reason": self.reason, "with": other if self.other else None, "rows": rows}


def flat(record: Record) -> dict[str, float]:
    """Return the figures of one replica, by the names that expectations have."""
    figures = record["figures"]
    found = {"output_throughput": figures["output_throughput"] / record["replicas"]}
    if figures["good_share"] is not None:
        found["good_share"] = figures["good_share"]
    for latency in LEAST_MS:
        for percentile in PERCENTILE_RATIOS:
            found[f"{latency}_p{percentile}_ms"] = figures[f"{latency}_ms"][f"p{percentile}"]
    return found


def with_last(record: Record, earlier: Iterable[Record]) -> Comparison:
    """Compare with the newest run of the pool that is like this one; without any, say how the newest differs."""
    mine = sorted((one for one in earlier if one.get("pool") == record["pool"]), key=lambda one: str(one["time"]))[::-1]
    alike = [one for one in mine if not _differs(record, one)]
    # the same release first: a changed flag is another thing than a changed host
    alike.sort(key=lambda one: one["release"] != record["release"])
    if alike:
        return _judged(record, alike[0])
    of_profile = [one for one in mine if one["profile"] == record["profile"]]
    if not of_profile:
        return Comparison(INCOMPARABLE, f"it is the first run of {record['profile']} in pool {record['pool']}")
    return Comparison(INCOMPARABLE, f"another {_differs(record, of_profile[0])}", (), of_profile[0])


def with_expected(record: Record, figures: Mapping[str, float]) -> Comparison:
    """Compare with what the inventory expects of a replica."""
    if not figures:
        return Comparison(INCOMPARABLE, "no figure yet: llmops_benchmark_expected says nothing of this profile")
    if doubt := _doubt(record):
        return Comparison(INCOMPARABLE, doubt)
    now = flat(record)
    rows = [_row(name, now[name], then, record) for name, then in figures.items() if name in now]
    return Comparison(*_verdict(rows), rows)


def _differs(record: Record, other: Record) -> str:
    return next((words for name, words in _EQUAL if record[name] != other.get(name)), "")


def _doubt(record: Record) -> str:
    share = record.get("client_cpu_share")
    if share is not None and share >= BUSY_CLIENT:
        return f"the client was the bottleneck (run of {record['time']}): its figures say little of the server"
    return ""


def _judged(record: Record, other: Record) -> Comparison:
    if doubt := _doubt(record) or _doubt(other):
        return Comparison(INCOMPARABLE, doubt, (), other)
    now, then = flat(record), flat(other)
    rows = [_row(name, now[name], then[name], record, other) for name in now if name in then]
    rows.append(_errors(record, other))
    verdict, reason = _verdict(rows)
    if verdict == INCOMPARABLE:
        return Comparison(verdict, reason, rows, other)
    if other["release"] != record["release"]:
        reason += f" (then release {other['release']}, now {record['release']})"
    return Comparison(verdict, reason, rows, other)


def _verdict(rows: Sequence[Row]) -> tuple[str, str]:
    """The verdict and its reason; worse outweighs better."""
    for verdict in (WORSE, BETTER):
        those = [row for row in rows if row.result == verdict]
        if those:
            return verdict, ", ".join(_words(row) for row in those)
    if all(row.result == TOLD for row in rows):
        return INCOMPARABLE, "; ".join(dict.fromkeys(row.why for row in rows if row.why)) or "nothing is judged"
    return SAME, "nothing differs by more than what counts"


def _words(row: Row) -> str:
    return f"{row.name} {row.now:g} against {row.then:g}"


def _row(name: str, now: float, then: float, *records: Record) -> Row:
    """One figure judged by the rule for it."""
    ratio = round(now / then, 3) if then else None
    answers = min(one["figures"]["completed"] for one in records)
    if name == "output_throughput":
        if records[0]["recipe"]["request_rate"]:
            return Row(name, now, then, ratio, TOLD, "requests come at a rate, which decides the throughput")
        if answers < BEYOND:
            return Row(name, now, then, ratio, TOLD, _few(BEYOND, answers))
        return Row(name, now, then, ratio, _beyond(then, now, THROUGHPUT_RATIO))
    if name == "good_share":
        if answers < BEYOND:
            return Row(name, now, then, ratio, TOLD, _few(BEYOND, answers))
        points = (now - then) * 100
        return Row(
            name, now, then, ratio, WORSE if points < -SHARE_POINTS else BETTER if points > SHARE_POINTS else SAME
        )
    latency, percentile = name.split("_")[0], int(name.split("_")[1][1:])
    needed = BEYOND * 100 // (100 - percentile)
    if answers < needed:
        return Row(name, now, then, ratio, TOLD, _few(needed, answers))
    result = _beyond(now, then, PERCENTILE_RATIOS[percentile])
    return Row(name, now, then, ratio, SAME if abs(now - then) <= LEAST_MS[latency] else result)


def _few(needed: int, answers: int) -> str:
    return f"too few answers: {answers}, needed are {needed}"


def _beyond(high_is_bad: float, other: float, ratio: float) -> str:
    """Worse when the first is more than ``ratio`` times the other; better when it is as much less."""
    return WORSE if high_is_bad > other * ratio else BETTER if other > high_is_bad * ratio else SAME


def _errors(record: Record, other: Record) -> Row:
    now, then = (_error_percent(one["figures"]) for one in (record, other))
    result = WORSE if now > then + ERROR_POINTS else BETTER if then > now + ERROR_POINTS else SAME
    return Row("errors_percent", now, then, None, result)


def _error_percent(figures: Mapping[str, Any]) -> float:
    broken: int = figures["failed"] + figures["short"]
    asked: int = figures["completed"] + figures["failed"]
    return round(100 * broken / asked, 2)
