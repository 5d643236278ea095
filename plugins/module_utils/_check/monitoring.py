# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with prices, budgets, bounds and limits: the numbers of the inventory that monitoring tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import _fleet
from .._monitoring import limits as _limits
from .problem import Problem, shown

PRICE = "llmops_price_usd_per_hour"
BUDGETS = ("llmops_daily_budget_usd", "llmops_monthly_budget_usd")
TARGET = "llmops_cost_target_usd_per_million_tokens"
BOUNDS = ("llmops_replicas_min", "llmops_replicas_max")

_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    PRICE: (lambda n: n >= 0, "the US dollars that the whole host costs in an hour, 0 or more"),
    BUDGETS[0]: (lambda n: n > 0, "US dollars above 0, or remove the line"),
    BUDGETS[1]: (lambda n: n > 0, "US dollars above 0, or remove the line"),
    TARGET: (lambda n: n > 0, "US dollars above 0, or remove the line"),
    BOUNDS[0]: (lambda n: n >= 0 and n.is_integer(), "a whole number, 0 or more"),
    BOUNDS[1]: (lambda n: n >= 1 and n.is_integer(), "a whole number, 1 or more"),
}


def problems(
    hostvars: Mapping[str, Mapping[str, Any]], servers: Sequence[str], fleet: Sequence[Mapping[str, Any]]
) -> Iterator[Problem]:
    """Yield what is wrong with the numbers host by host, then what differs where it must not."""
    pools = list(dict.fromkeys(str(replica["pool"]) for replica in fleet))
    for host in servers:
        yield from _numbers(host, hostvars[host])
        yield from _limits.problems(host, hostvars[host], pools)
    for name in BUDGETS:
        values = ((host, hostvars[host].get(name)) for host in servers)
        yield from _differing(name, "", values, "the whole fleet has one: set it once, for all hosts")
    for pool in _fleet.pools(fleet):
        yield from _pool(pool, hostvars)
    yield from _prices(hostvars, servers)


def _numbers(host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    for name, (good, wanted) in _NUMBERS.items():
        value = _fleet.setting(variables, name)
        number = _fleet.as_float(value)
        if value is not None and (number is None or not good(number)):
            yield Problem(host, name, repr(value), f"{shown(name, value)}: give {wanted}")
    least, most = (_fleet.as_float(_fleet.setting(variables, name)) for name in BOUNDS)
    if least is not None and most is not None and least > most:
        text = f"is {least:g}, and {BOUNDS[1]} is {most:g}: the least cannot be more than the most"
        yield Problem(host, BOUNDS[0], repr(least), text)


def _pool(pool: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    name = pool["name"]
    mend = "replicas of a pool share one: set it where llmops_pool is set"
    for variable in (TARGET, *BOUNDS):
        values = ((one["id"], hostvars[one["host"]].get(variable)) for one in pool["replicas"])
        yield from _differing(variable, f" within pool {name!r}", values, mend)
    profile = str(pool["profile"])  # that of all, or _check.pools tells
    limits = ((one["id"], _limits.limits(hostvars[one["host"]], name, profile)) for one in pool["replicas"])
    yield from _differing(_limits.VARIABLE, f" within pool {name!r}", limits, mend)


def _differing(variable: str, where: str, values: Iterable[tuple[str, Any]], mend: str) -> Iterator[Problem]:
    first = None
    for owner, value in values:
        number = _fleet.as_float(value)
        own = (owner, value if number is None else number)
        first = first or own
        if own[1] != first[1]:
            told = f"{_words(first[1])} on {first[0]}, {_words(own[1])} on {own[0]}"
            yield Problem("", variable, _words(own[1]), f"differs{where}: {told}; {mend}")
            return


def _words(value: Any) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _prices(hostvars: Mapping[str, Mapping[str, Any]], servers: Sequence[str]) -> Iterator[Problem]:
    """All hosts have a price or none has: a sum without some of them would be taken for the whole."""
    priced = [host for host in servers if hostvars[host].get(PRICE) is not None]
    unpriced = [host for host in servers if host not in priced]
    wanted = [name for name in (*BUDGETS, TARGET) if any(hostvars[host].get(name) is not None for host in servers)]
    why = f"{priced[0]} has one" if priced else f"{wanted[0]} is set" if wanted else ""
    for host in unpriced if why else ():
        kind = _fleet.setting(hostvars[host], "llmops_gpu_type", "")
        of_kind = f", a host of the GPU type {kind}" if kind else ""
        text = f"is not set{of_kind}, though {why}: give what the host costs in an hour (0 is a price, too)"
        yield Problem(host, PRICE, "", text)
