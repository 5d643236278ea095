# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cost report as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._text_table import aligned

COLUMNS = ("pool", "GPU hours", "USD", "tokens in", "tokens out", "USD/M tokens", "USD/M out", "target")


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return the table of pools, then the plan, then what is missing."""
    rows = [COLUMNS, *(_cells(row["pool"], row) for row in report["pools"]), _cells("sum", report["total"])]
    first = f"Cost from {_time(report['from'])} to {_time(report['to'])} UTC ({report['days']:g} days)"
    return [
        first,
        *aligned(rows),
        *_plan(report),
        *(f"Missing: {gap['text']}" for gap in report["gaps"]),
        *report["notes"],
    ]


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    target = row.get("target_usd_per_million_tokens")
    price = row["usd_per_million_tokens"]
    over = target is not None and price is not None and price > target
    return (
        name or "(none)",
        f"{row['gpu_hours']:,.1f}",
        f"{row['usd']:,.2f}",
        f"{row['tokens_in']:,}",
        f"{row['tokens_out']:,}",
        _usd(price),
        _usd(row["usd_per_million_output_tokens"]),
        f"{_usd(target)}{' over' if over else ''}",
    )


def _plan(report: Mapping[str, Any]) -> Iterator[str]:
    plan, usd = report["plan"], report["total"]["usd"]
    for name, kind in (("daily", "a day"), ("monthly", "a month")):
        budget, share = plan[f"{name}_budget_usd"], plan[f"{name}_budget_of_period_usd"]
        if budget is not None:
            yield f"Budget of {budget:,.2f} USD {kind}: {usd:,.2f} of {share:,.2f} USD ({usd / share:.1%})"
    over = plan["days_over_daily_budget"]
    if over:
        shown = ", ".join(over[:10]) + (f" and {len(over) - 10} more" if len(over) > 10 else "")
        yield f"Days over the daily budget: {shown}"


def _usd(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _time(stamp: str) -> str:
    return stamp[:10] if stamp.endswith("T00:00:00Z") else stamp[:16].replace("T", " ")
