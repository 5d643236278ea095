"""Stalls that are part of life at 80 % bursty load, and longer ones, which must be noticed."""

from __future__ import annotations

import json
import random
import time

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.traffic import faults, seen
from tests.traffic.fleet import BALANCERS, CLIENT, await_healthy, await_that, sh
from tests.traffic.load import under_load

_SECONDS = 1800
_SLOTS, _STEP, _FIRST = 16, 0.02, 0.05  # of a fake replica: molecule/faults/inventory
_SHARE = 0.8
_TOKENS = (100, 200)
_BURST_SECONDS, _BURST = 5, 1.25  # for so long above the mean, then as long as much below it
_LONG_STALLS = 10
_SERIES = "/root/stalls.series"


def bursty(seconds: float, rate: float, seed: int = 1) -> list[dict[str, float | int | bool]]:
    """Arrivals for ``tests.load --replay``: Poisson, whose rate is 1.25 and 0.75 times the mean, 5 s each in turn."""
    found: list[dict[str, float | int | bool]] = []
    dice, at = random.Random(seed), 0.0
    while True:
        high = int(at / _BURST_SECONDS) % 2 == 0
        at += dice.expovariate(rate * (_BURST if high else 2 - _BURST))
        if at > seconds:
            return found
        tokens = dice.randint(*_TOKENS)
        found.append({"at": round(at, 4), "words": 20, "tokens": tokens, "stream": dice.random() < 0.8, "chat": True})


def measure(setting: Setting) -> list[Row]:
    """Stalls of 3.5 s on two replicas, of an engine and of an API server; then ten of 6 s on another."""
    seconds = _SECONDS / 10 if setting.short else _SECONDS
    service = _FIRST + sum(_TOKENS) / 2 * _STEP
    rate = _SHARE * _SLOTS * len(setting.fleet.replicas) / service
    series = bursty(seconds + 30, rate)
    sh(CLIENT, f"cat > {_SERIES}", given="\n".join(json.dumps(row) for row in series) + "\n")
    with under_load("--replay", _SERIES, "--seconds", str(seconds + 30)) as loads:
        begin = time.time()
        faults.switch(setting.pick(0), "stall", seconds=3.5, every=15, for_=seconds)
        faults.switch(setting.pick(1), "stall_server", seconds=3.5, every=15, for_=seconds)
        for minute in range(int(seconds // 60)):
            time.sleep(60)  # the time in which nothing may happen
            say(f"minute {minute + 1}: {_removed(begin)} removals")
        removed = _removed(begin)
        faults.clear(setting.fleet)
    rows = loads[0].rows
    result = f"{removed} removals in {seconds / 60:.0f} min; {len(seen.bad(rows))} of {len(rows)} failed"
    bound = "0 removals in 30 min"
    found = [Row(f"3.5 s every 15 s, {rate:.0f} requests/s (80 %), bursty", result, bound, not removed)]
    return [*found, _long(setting)]


def _removed(begin: float) -> int:
    return sum(len(events) for events in seen.removals(begin).values())


def _long(setting: Setting) -> Row:
    victim, noticed, count = setting.pick(2), 0, 2 if setting.short else _LONG_STALLS
    with under_load("--rate", "25", "--tokens", "50-100") as loads:
        for number in range(count):
            begin = time.time()
            faults.switch(victim, "stall", seconds=6)
            try:
                await_that(lambda since=begin: _told(victim.id, since), "both agents tell of it", 12)
                noticed += 1
            except AssertionError:
                say(f"stall {number + 1} of 6 s was not noticed")
            await_healthy(setting.fleet)
    result = f"noticed by both balancers: {noticed} of {count}; {len(seen.bad(loads[0].rows))} requests failed"
    return Row("6 s, nothing generated", result, "always noticed", noticed == count)


def _told(replica: str, since: float) -> bool:
    return all(any(event.replica == replica for event in seen.events(name, since)) for name in BALANCERS)
