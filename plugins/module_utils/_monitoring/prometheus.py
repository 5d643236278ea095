# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks Prometheus, or what speaks like it, for values now and over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .json_api import ApiError, JsonApi

# Prometheus refuses more points of one series.
MOST_POINTS = 11000

Labels = tuple[tuple[str, str], ...]  # sorted, so that they can be looked up


class Prometheus:
    """One Prometheus; ``warnings`` are what it told besides, such as that an answer is not whole."""

    def __init__(self, api: JsonApi) -> None:
        self._api = api
        self.warnings: list[str] = []

    def at(self, expression: str, when: int) -> dict[Labels, float]:
        """Return the values at a time, in seconds since 1970, by their labels."""
        rows = self._ask("query", expression, [("time", str(when))], "vector")
        return {labels: float(row["value"][1]) for labels, row in rows.items()}

    def over(self, expression: str, first: int, last: int, step: int) -> dict[Labels, dict[int, float]]:
        """Return the values at each step from the first to the last time, both included."""
        found: dict[Labels, dict[int, float]] = {}
        span = (MOST_POINTS - 1) * step
        for start in range(first, last + 1, span + step):
            times = [("start", str(start)), ("end", str(min(last, start + span))), ("step", str(step))]
            for labels, row in self._ask("query_range", expression, times, "matrix").items():
                found.setdefault(labels, {}).update((int(when), float(value)) for when, value in row["values"])
        return found

    def _ask(self, path: str, expression: str, times: list[tuple[str, str]], kind: str) -> dict[Labels, Any]:
        answer = self._api.post_form(f"/api/v1/{path}", [("query", expression), *times])
        try:
            if answer["status"] != "success" or answer["data"]["resultType"] != kind:
                raise KeyError
            rows = {_labels(row["metric"]): row for row in answer["data"]["result"]}
        except (KeyError, TypeError, AttributeError):
            where = f"POST {self._api.url}/api/v1/{path}"
            raise ApiError(f"{where}: answered no {kind} of values: is it a Prometheus?") from None
        self.warnings += [text for text in answer.get("warnings") or [] if text not in self.warnings]
        return rows


def _labels(metric: Mapping[str, str]) -> Labels:
    return tuple(sorted(metric.items()))
