"""The balancer that holds the address loses its engine, its keepalived, its network."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.traffic import faults, fleet, seen
from tests.traffic.fleet import await_healthy
from tests.traffic.load import under_load

_ROUNDS, _WATCHED_SECONDS = 3, 10


def _cut_off(balancer: str) -> None:
    with faults.without_network(balancer):
        time.sleep(_WATCHED_SECONDS)


_CASES: dict[str, Callable[[str], None]] = {
    "engine killed": lambda balancer: faults.kill_unit(balancer, "nginx"),
    "keepalived killed": lambda balancer: faults.kill_unit(balancer, "keepalived"),
    "agent killed": lambda balancer: faults.kill_unit(balancer, "llm-agent"),
    "host gone": _cut_off,
}


def measure(setting: Setting) -> list[Row]:
    """Each of them, three times; every request has a connection of its own."""
    return [_case(setting, what) for what in _CASES]


def _case(setting: Setting, what: str) -> Row:
    sent, failed, late, last, slowest = 0, 0, 0, 0.0, 0.0
    for _turn in range(1 if setting.short else _ROUNDS):
        say(what)
        rate = "20" if setting.fleet.fake else "5"
        with under_load("--rate", rate, "--tokens", "4-8", "--new-connections", "--timeout", "60") as loads:
            balancer, begin = fleet.holder(), time.time()
            _CASES[what](balancer)
            time.sleep(max(0.0, begin + _WATCHED_SECONDS - time.time()))
        rows = loads[0].rows
        bad, after = seen.bad(rows), seen.started_after(rows, begin + 1)
        sent, failed, late = sent + len(after), failed + len(bad), late + len(seen.bad(after))
        last = max([last, *(row["start"] - begin for row in bad)])
        slowest = max([slowest, *(row["seconds"] for row in after)])
        await_healthy(setting.fleet, 120)
    result = f"{late} of {sent} requests started >= 1 s after it failed, the slowest took {slowest:.1f} s;"
    result += f" {failed} failed in all, the last one started {last:+.1f} s after it"
    return Row(what, result, "all succeed", not late and sent > 0)
