# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a replica of vLLM 0.32 has counted since its start, as its ``/metrics`` tell, and the difference of two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Replica, samples

FINISHED = ("stop", "length", "abort", "error", "repetition")
_FIRST = "vllm:time_to_first_token_seconds"
_QUEUE = "vllm:request_queue_time_seconds"
_BETWEEN = "vllm:inter_token_latency_seconds"
_OUTPUT = "vllm:request_generation_tokens"
_PROMPT = "vllm:request_prompt_tokens"
_LENGTHS = f"{_OUTPUT}_bucket"
_WISHED = "vllm:request_params_max_tokens_bucket"
_FINISHED = "vllm:request_success_total"
_HTTP = "http_requests_total"
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_STARTED = "process_start_time_seconds"
# What is one number of a page, summed over its engines, and the count that it goes to.
_PLAIN = {
    f"{_FIRST}_sum": "ttft_sum",
    f"{_FIRST}_count": "ttft_count",
    f"{_QUEUE}_sum": "queue_sum",
    f"{_QUEUE}_count": "queue_count",
    f"{_BETWEEN}_sum": "itl_sum",
    f"{_BETWEEN}_count": "itl_count",
    f"{_OUTPUT}_sum": "output_sum",
    f"{_OUTPUT}_count": "output_count",
    f"{_PROMPT}_sum": "prompt_sum",
    f"{_PROMPT}_count": "prompt_count",
    "vllm:prefix_cache_queries_total": "cache_queries",
    "vllm:prefix_cache_hits_total": "cache_hits",
    "vllm:admission_rejections_total": "rejected",
    "vllm:iteration_tokens_total_count": "steps",
}
_NAMES = frozenset([*_PLAIN, _LENGTHS, _WISHED, _FINISHED, _HTTP, _RUNNING, _WAITING, _STARTED])
_STATUS = {"2xx": "served", "4xx": "refused", "5xx": "failed"}


class CanaryError(LlmopsError):
    """What was given cannot be compared, in words that say what to give instead."""


@dataclass(frozen=True)
class Counts:
    """Counters of one server, or of several together; sums are in seconds and in tokens."""

    ttft_sum: float = 0.0
    ttft_count: float = 0.0
    queue_sum: float = 0.0
    queue_count: float = 0.0
    itl_sum: float = 0.0
    itl_count: float = 0.0
    output_sum: float = 0.0
    output_count: float = 0.0
    # lengths of answers as the histogram tells them, no nearer than its buckets: they tell the spread, not the mean
    output_near: float = 0.0  # their sum
    output_squares: float = 0.0  # the sum of their squares
    prompt_sum: float = 0.0
    prompt_count: float = 0.0
    cache_queries: float = 0.0
    cache_hits: float = 0.0
    one_token: float = 0.0  # requests that wanted one token: the completion probes of balancers and watchdogs
    served: float = 0.0  # answers 2xx to what generates
    refused: float = 0.0  # 4xx: what the client did wrong
    failed: float = 0.0  # 5xx
    rejected: float = 0.0  # by a limit of the queue; most of them are in ``failed`` too
    steps: float = 0.0
    stop: float = 0.0
    length: float = 0.0
    abort: float = 0.0
    error: float = 0.0  # streams that broke inside HTTP 200, and answers in one piece that are in ``failed`` too
    repetition: float = 0.0

    def since(self, before: Counts) -> Counts:
        """What was counted after ``before``."""
        return Counts(**{f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(Counts)})

    def went_back(self, before: Counts) -> bool:
        """Whether a counter is lower than before, as after a start."""
        return any(getattr(self, f.name) < getattr(before, f.name) for f in fields(Counts))

    @property
    def started(self) -> float:
        """Requests of clients that got a first token."""
        return max(0.0, self.ttft_count - self.one_token)

    @property
    def answered(self) -> float:
        """Requests of clients that were answered, well or not, but for what the client did wrong."""
        return max(0.0, self.served + self.failed - self.one_token)

    @property
    def errors(self) -> float:
        """Requests that the server spoiled."""
        return min(self.served + self.failed, max(self.failed, self.rejected) + self.error)

    @property
    def seen(self) -> float:
        """Requests of clients that came to something: a first token, or an error."""
        return max(self.started, self.answered)


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of several counts."""
    rows = list(parts)
    return Counts(**{f.name: sum(getattr(row, f.name) for row in rows) for f in fields(Counts)})


@dataclass(frozen=True)
class Reading:
    """One look at a server."""

    counts: Counts = field(default_factory=Counts)
    running: int = 0
    waiting: int = 0
    born: float = 0.0  # time at which the process was started, seconds since 1970; 0 where it is not told

    def anew(self, before: Reading) -> bool:
        """Whether the server was started after ``before``: its counters begin at 0 again."""
        return abs(self.born - before.born) > 1.0 or self.counts.went_back(before.counts)

    def data(self) -> dict[str, Any]:
        """As it is handed from one call of the module to the next."""
        return asdict(self)


def reading_of(text: str) -> Reading:
    """The reading of a ``/metrics`` text of vLLM 0.32; ApiError when it is not one."""
    counts: dict[str, float] = {}
    gauges: dict[str, float] = {}
    lengths: dict[float, float] = {}

    def add(name: str, value: float) -> None:
        counts[name] = counts.get(name, 0.0) + value

    for name, labels, value in samples(text, _NAMES):
        if not math.isfinite(value):
            continue
        if name in _PLAIN:
            add(_PLAIN[name], value)
        elif name == _LENGTHS:
            bound = float(labels.get("le", "inf"))
            lengths[bound] = lengths.get(bound, 0.0) + value
        elif name == _WISHED:
            if labels.get("le") in ("1", "1.0"):
                add("one_token", value)
        elif name == _FINISHED:
            if labels.get("finished_reason") in FINISHED:
                add(labels["finished_reason"], value)
        elif name == _HTTP:
            # what generates is posted; lists of models and the like are asked for by GET
            if labels.get("method") == "POST" and labels.get("handler", "").startswith("/v1/"):
                add(_STATUS.get(labels.get("status", ""), "served"), value)
        else:
            gauges[name] = gauges.get(name, 0.0) + value
    if _RUNNING not in gauges:
        raise ApiError(f"/metrics holds no {_RUNNING}: this is not a vLLM server", status=200)
    running, waiting = (int(gauges.get(name, 0)) for name in (_RUNNING, _WAITING))
    counts["output_near"], counts["output_squares"] = _spread(lengths)
    return Reading(Counts(**counts), running, waiting, gauges.get(_STARTED, 0.0))


def _spread(cumulated: Mapping[float, float]) -> tuple[float, float]:
    """Sum and sum of squares of what a histogram counted, as if its values lay evenly in each bucket.

    Answers of one token, which probes ask for, are left out.
    """
    near = squares = before = low = 0.0
    for bound, count in sorted(cumulated.items()):
        high = bound if math.isfinite(bound) else low
        if high > 1:
            near += (count - before) * (low + high) / 2
            squares += (count - before) * (low**2 + low * high + high**2) / 3
        low, before = high, count
    return near, squares


def read(replica: Replica) -> Reading:
    """Reads a replica's ``/metrics``; ApiError when it does not answer as vLLM does."""
    status, data = replica.request("GET", "/metrics")
    if status != 200:
        raise ApiError(f"GET {replica.url.rstrip('/')}/metrics: answered {status}", status=status)
    return reading_of(data.decode("utf-8", "replace"))


def counts_from(data: Any, what: str) -> Counts:
    """Counts that a former call gave out; CanaryError names ``what`` is not one."""
    names = {f.name for f in fields(Counts)}
    if not isinstance(data, Mapping) or set(data) != names:
        raise CanaryError(f"{what} is not what an earlier call of this module returned: give that unchanged")
    return Counts(**{name: number(value, f"{what}.{name}") for name, value in data.items()})


def reading_from(data: Any, what: str) -> Reading:
    """A reading that a former call gave out; CanaryError names ``what`` is not one."""
    if not isinstance(data, Mapping) or set(data) != {f.name for f in fields(Reading)}:
        raise CanaryError(f"{what} is not what an earlier call of this module returned: give that unchanged")
    running, waiting = (int(number(data[name], f"{what}.{name}")) for name in ("running", "waiting"))
    return Reading(
        counts_from(data["counts"], f"{what}.counts"), running, waiting, number(data["born"], f"{what}.born")
    )


def number(value: Any, what: str) -> float:
    """A finite number, which Jinja may have made a text of; CanaryError otherwise."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise CanaryError(f"{what} is {value!r}, needed is a number: give what this module returned unchanged")
    return found
