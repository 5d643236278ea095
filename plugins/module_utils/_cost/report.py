# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet cost in a period, what it generated, and how that is to plan; from what Prometheus recorded.

Prices are read minute by minute with the expression of the recording rule ``pool:llmops_cost_usd_per_hour:sum``, so
that a price that changed counts for the minutes in which it held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._errors import LlmopsError
from .._monitoring.prometheus import Labels, Prometheus
from .period import DAY, Period, stamp, words

MINUTE = 60
PRICES = "sum by (pool) (max by (host, replica, pool, commitment) (llmops_replica_price_usd_per_hour))"
GPUS = "sum by (pool) (max by (host, replica, pool) (llmops_replica_gpus))"
# Replicas of whose tokens nothing is known: neither were they counted, nor was it seen that they are down.
UNCOUNTED = (
    "count by (pool) (max by (replica, pool) (llmops_replica_gpus)"
    ' unless on (replica) (vllm:generation_tokens_total or up{job="vllm"} == 0))'
)
TOKENS = "sum by (pool) (increase({name}[{seconds}s]))"
TOKENS_IN, TOKENS_OUT = "vllm:prompt_tokens_total", "vllm:generation_tokens_total"

Minutes = dict[int, float]  # by the second at which the minute begins


class CostError(LlmopsError):
    """There is nothing to report about."""


@dataclass(frozen=True)
class Gap:
    """Minutes of which something is not known, from the first to before the last second."""

    start: int
    end: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"from": stamp(self.start), "to": stamp(self.end), "hours": round((self.end - self.start) / 3600, 3)}

    def words(self) -> str:
        """Return it for people."""
        return f"from {words(self.start)} to {words(self.end)} ({(self.end - self.start) / 3600:.1f} h)"


def report(prometheus: Prometheus, period: Period) -> dict[str, Any]:
    """Return the report; CostError when there is no price in the whole period."""
    last = period.end - MINUTE
    prices = _by_pool(prometheus.over(PRICES, period.start, last, MINUTE))
    if not prices:
        raise CostError(
            f"no llmops_replica_price_usd_per_hour from {words(period.start)} to {words(period.end)}: set "
            "llmops_price_usd_per_hour for the servers and let monitoring write it; what was before is not recorded"
        )
    gpus = _by_pool(prometheus.over(GPUS, period.start, last, MINUTE))
    uncounted = _by_pool(prometheus.over(UNCOUNTED, period.start, last, MINUTE))
    known = {minute for values in prices.values() for minute in values}
    gaps = _gaps(minute for minute in range(period.start, period.end, MINUTE) if minute not in known)
    edges = _edges(period, gaps)
    tokens_in, tokens_out = (_tokens(prometheus, name, edges) for name in (TOKENS_IN, TOKENS_OUT))
    targets = _by_pool_now(
        prometheus, "max by (pool) (last_over_time(llmops_target_usd_per_million_tokens[{}s]))", period
    )
    rows = [
        {
            "pool": pool,
            **_figures(
                _hours(gpus.get(pool, {})),
                _hours(prices.get(pool, {})),
                tokens_in.get(pool, 0),
                tokens_out.get(pool, 0),
            ),
            "target_usd_per_million_tokens": targets.get(pool),
        }
        for pool in sorted({*prices, *tokens_out})
    ]
    days = _days(period, prices)
    return {
        "from": stamp(period.start),
        "to": stamp(period.end),
        "days": round(period.days, 4),
        "pools": rows,
        "total": _figures(*(math.fsum(row[name] for row in rows) for name in _SUMMED)),
        "by_day": days,
        "plan": _plan(prometheus, period, days),
        "gaps": [*_price_gaps(prices, gaps), *_token_gaps(uncounted)],
        "notes": prometheus.warnings,
    }


_SUMMED = ("gpu_hours", "usd", "tokens_in", "tokens_out")


def _figures(gpu_hours: float, usd: float, tokens_in: float, tokens_out: float) -> dict[str, Any]:
    return {
        "gpu_hours": round(gpu_hours, 3),
        "usd": round(usd, 4),
        "tokens_in": round(tokens_in),
        "tokens_out": round(tokens_out),
        "usd_per_million_tokens": _per_million(usd, tokens_in + tokens_out),
        "usd_per_million_output_tokens": _per_million(usd, tokens_out),
    }


def _per_million(usd: float, tokens: float) -> float | None:
    return round(usd / tokens * 1e6, 4) if tokens >= 1 else None


def _hours(minutes: Mapping[int, float]) -> float:
    return math.fsum(minutes.values()) / 60


def _by_pool(found: Mapping[Labels, Minutes]) -> dict[str, Minutes]:
    return {dict(labels).get("pool", ""): values for labels, values in found.items()}


def _by_pool_now(prometheus: Prometheus, expression: str, period: Period) -> dict[str, float]:
    found = prometheus.at(expression.format(period.end - period.start), period.end)
    return {dict(labels).get("pool", ""): value for labels, value in found.items()}


def _tokens(prometheus: Prometheus, name: str, edges: Sequence[int]) -> dict[str, float]:
    """Return tokens by pool. Day by day, as months of raw samples are more than Prometheus takes at once."""
    found: dict[str, float] = {}
    for start, end in zip(edges, edges[1:]):
        for labels, value in prometheus.at(TOKENS.format(name=name, seconds=end - start), end).items():
            pool = dict(labels).get("pool", "")
            found[pool] = found.get(pool, 0) + value
    return found


def _edges(period: Period, gaps: Sequence[Gap]) -> list[int]:
    """Return where days begin. What counters counted in a gap is in the difference across it, so none is cut in two."""
    cuts = [next((gap.end for gap in gaps if gap.start <= cut < gap.end), cut) for cut in period.midnights()]
    return sorted({period.start, *(cut for cut in cuts if cut < period.end), period.end})


def _gaps(minutes: Iterable[int]) -> list[Gap]:
    found: list[Gap] = []
    for minute in sorted(minutes):
        if found and found[-1].end == minute:
            found[-1] = Gap(found[-1].start, minute + MINUTE)
        else:
            found.append(Gap(minute, minute + MINUTE))
    return found


def _price_gaps(prices: Mapping[str, Minutes], gaps: Iterable[Gap]) -> list[dict[str, Any]]:
    """Without any price, nothing is added to the sum: say about how much is missing."""
    whole: Minutes = {}
    for values in prices.values():
        for minute, price in values.items():
            whole[minute] = whole.get(minute, 0) + price
    found = []
    for gap in gaps:
        price = whole.get(gap.start - MINUTE, whole.get(gap.end, 0))  # known at one end, unless it is all a gap
        missing = price * (gap.end - gap.start) / 3600
        text = f"no prices {gap.words()}: about {missing:,.2f} USD are missing in the sums, at the price at its edge"
        found.append({"what": "prices", "pool": None, **gap.as_dict(), "usd_missing": round(missing, 2), "text": text})
    return found


def _token_gaps(uncounted: Mapping[str, Minutes]) -> list[dict[str, Any]]:
    found = []
    for pool, minutes in sorted(uncounted.items()):
        for gap in _gaps(minutes):
            most = max(minutes[minute] for minute in range(gap.start, gap.end, MINUTE))
            text = (
                f"{most:.0f} replica(s) of pool {pool} were not scraped {gap.words()}: their tokens of then are "
                "counted only if they did not restart meanwhile"
            )
            found.append({"what": "tokens", "pool": pool, **gap.as_dict(), "replicas": int(most), "text": text})
    return found


def _days(period: Period, prices: Mapping[str, Minutes]) -> list[dict[str, Any]]:
    edges = [period.start, *period.midnights(), period.end]
    by_day: dict[int, list[float]] = {}
    for values in prices.values():
        for minute, price in values.items():
            by_day.setdefault(minute // DAY, []).append(price)
    return [
        {
            "day": stamp(start)[:10],
            "hours": round((end - start) / 3600, 3),
            "usd": round(math.fsum(by_day.get(start // DAY, [])) / 60, 4),
        }
        for start, end in zip(edges, edges[1:])
    ]


def _plan(prometheus: Prometheus, period: Period, days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the budgets as they were at the end of the period, their shares of it, and the days above them."""
    daily, monthly = (
        next(iter(_by_pool_now(prometheus, f"max(last_over_time({name}[{{}}s]))", period).values()), None)
        for name in ("llmops_budget_daily_usd", "llmops_budget_monthly_usd")
    )
    return {
        "daily_budget_usd": daily,
        "daily_budget_of_period_usd": None if daily is None else round(daily * period.days, 4),
        "days_over_daily_budget": [day["day"] for day in days if daily is not None and day["usd"] > daily],
        "monthly_budget_usd": monthly,
        "monthly_budget_of_period_usd": None if monthly is None else round(monthly * math.fsum(period.months()), 4),
    }
