# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The period of a cost report: whole minutes in UTC, and the days and months that it touches."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from .._errors import LlmopsError

UTC = datetime.timezone.utc
DAY = 86400
MOST_DAYS = 366


class PeriodError(LlmopsError):
    """No period, or none that can be reported about."""


@dataclass(frozen=True)
class Period:
    """From the first second to before the last one, in seconds since 1970."""

    start: int
    end: int

    @property
    def days(self) -> float:
        """Return how many days it has."""
        return (self.end - self.start) / DAY

    def midnights(self) -> list[int]:
        """Return the midnights inside."""
        return list(range(self.start - self.start % DAY + DAY, self.end, DAY))

    def months(self) -> Iterator[float]:
        """Yield the share of each calendar month that it covers."""
        month = at(self.start).replace(day=1, hour=0, minute=0)
        while month.timestamp() < self.end:
            following = (month + datetime.timedelta(days=32)).replace(day=1)
            first, last = int(month.timestamp()), int(following.timestamp())
            yield (min(last, self.end) - max(first, self.start)) / (last - first)
            month = following


def period(start: str, end: str, days: int, now: datetime.datetime) -> Period:
    """Return the period from ``start`` to before ``end``; without them the last whole days before today."""
    this_minute = int(now.timestamp()) // 60 * 60
    last_midnight = this_minute - this_minute % DAY
    if not 1 <= days <= MOST_DAYS:
        raise PeriodError(f"days is {days}: 1 to {MOST_DAYS} are wanted")
    if start:
        first, last = _time("from", start), _time("to", end) if end else this_minute
    else:
        last = _time("to", end) if end else last_midnight
        first = last - days * DAY
    if first >= this_minute:
        raise PeriodError(f"from is {words(first)}, which is not in the past: nothing was measured yet")
    last = min(last, this_minute)
    if first >= last:
        raise PeriodError(f"to is {words(last)}, and from is {words(first)}: to must be later; it is not included")
    if last - first > MOST_DAYS * DAY:
        raise PeriodError(f"from {words(first)} to {words(last)} is more than {MOST_DAYS} days: ask for less at a time")
    return Period(first, last)


def at(seconds: float) -> datetime.datetime:
    """Return this time in UTC."""
    return datetime.datetime.fromtimestamp(seconds, UTC)


def words(seconds: int) -> str:
    """Return this time for people: the day alone where it is a midnight."""
    return at(seconds).strftime("%Y-%m-%d" if seconds % DAY == 0 else "%Y-%m-%d %H:%M")


def stamp(seconds: int) -> str:
    """Return this time for programs."""
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(name: str, text: str) -> int:
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            found = datetime.datetime.strptime(text.strip().rstrip("Z"), form).replace(tzinfo=UTC, second=0)
            return int(found.timestamp())
        except ValueError:
            continue
    raise PeriodError(f"{name} is {text!r}: give a day such as 2026-11-01, or a time in UTC such as 2026-11-01T08:00")
