"""FAKE of Prometheus' query API for cost reports: one pool with a constant price, whatever the time.

It stands in where a test is about what the module asks and says; tests/unit/test_cost_report.py compares figures with a
real one, where Debian's package can be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.web import Answer

# By a word of the expression: pool chat has two GPUs and costs 12 USD an hour.
VALUES = {
    "llmops_replica_price_usd_per_hour": 12.0,
    "vllm:prompt_tokens_total": 3e6,
    "vllm:generation_tokens_total": 1e6,
    "llmops_budget_daily_usd": 100.0,
    "llmops_target_usd_per_million_tokens": 80.0,
}


class Prometheus:
    """Answers ``Web``; ``unknown`` are times, in seconds since 1970, of which it has no data."""

    def __init__(self, values: Mapping[str, float] | None = None, unknown: range = range(0)) -> None:
        self.values, self.unknown = VALUES if values is None else values, unknown

    def __call__(self, method: str, path: str, sent: Any) -> Answer:
        expression = sent["query"]
        # the expression that finds what was not counted names these, too
        value = 2.0 if "llmops_replica_gpus" in expression else None
        if " unless " not in expression:
            value = next((value for word, value in self.values.items() if word in expression), value)
        else:
            value = None
        metric = {"pool": "chat"} if "by (pool)" in expression else {}
        if path == "/api/v1/query":
            return _success("vector", [] if value is None else [{"metric": metric, "value": [0, str(value)]}])
        times = range(int(sent["start"]), int(sent["end"]) + 1, int(sent["step"]))
        values = [[time, str(value)] for time in times if time not in self.unknown]
        return _success("matrix", [] if value is None or not values else [{"metric": metric, "values": values}])


def _success(kind: str, result: list[dict[str, Any]]) -> Answer:
    return 200, {"status": "success", "data": {"resultType": kind, "result": result}}
