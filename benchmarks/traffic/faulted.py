"""One replica dead, frozen, wrong or slow: when it is out, when it is back, and who suffered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.traffic import faults, seen
from tests.traffic.fleet import BALANCERS, Replica, await_healthy, await_that, status
from tests.traffic.load import under_load

_WATCH_SECONDS = 60
_AFTER_SECONDS = 5
_READY_SECONDS = 180


def _load(setting: Setting) -> list[str]:
    rate = "25" if setting.fleet.fake else "3"
    return ["--rate", rate, "--tokens", "4-40" if setting.fleet.fake else "4-16", "--timeout", "40"]


def _await_out(replicas: list[Replica], begin: float) -> list[float]:
    """Seconds after which each was out of rotation on each balancer; AssertionError when one never was."""
    found = []
    for name in BALANCERS:
        for one in replicas:
            out = f"{one.id} is out on {name}"
            await_that(lambda n=name, r=one: seen.out_after(n, r, begin) is not None, out, _WATCH_SECONDS)
            found.append(seen.out_after(name, one, begin) or 0.0)
    return found


def _times(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f} s"


def dead(setting: Setting) -> list[Row]:
    """SIGKILL of a replica, and a host that is gone."""
    victim, rows = setting.pick(0), []
    cut_off = [one for one in setting.fleet.replicas if one.host == setting.pick(1).host]
    with under_load(*_load(setting)) as loads:
        begin = time.time()
        faults.kill_unit(victim.host, victim.unit)
        outs = _await_out([victim], begin)
        time.sleep(_AFTER_SECONDS)  # requests after the fault, which must be good
    rows.append(_lost("SIGKILL", outs, loads[0].rows, begin))
    await_healthy(setting.fleet, _READY_SECONDS)
    with under_load(*_load(setting)) as loads:
        begin = time.time()
        with faults.without_network(cut_off[0].host):
            outs = _await_out(cut_off, begin)
            time.sleep(_AFTER_SECONDS)
    return [*rows, _lost("host gone", outs, loads[0].rows, begin)]


def _lost(what: str, outs: list[float], rows: Sequence[seen.Row], begin: float) -> Row:
    bad, unborn = seen.bad(rows), seen.bad_before_first_byte(rows)
    late = seen.bad_started_after(rows, begin + 2)
    result = f"out after {_times(outs)}; {len(bad)} of {len(rows)} failed, {len(unborn)} of them had not begun,"
    result += f" {len(late)} started 2 s after it or later"
    bound = "out <= 2 s; failed only what had begun"
    return Row(what, result, bound, max(outs) <= 2 and not unborn and not late)


def frozen(setting: Setting) -> list[Row]:
    """Everything that is up and does not generate."""
    victim = setting.pick(0)
    cases: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "engine frozen": lambda: faults.frozen(victim, faults.ENGINE),
    }
    if setting.fleet.fake:
        cases["worker frozen"] = lambda: faults.frozen(victim, faults.WORKER)
        for kind in ("hang_after_accept", "error_500", "garbage", "reset", "huge_headers", "endless_body"):
            cases[kind] = lambda kind=kind: faults.faulty(victim, kind)
    return [_one(setting, what, victim, fault) for what, fault in cases.items()]


def _one(setting: Setting, what: str, victim: Replica, fault: Callable[[], AbstractContextManager[None]]) -> Row:
    say(what)
    with under_load(*_load(setting)) as loads:
        begin = time.time()
        with fault():
            outs = _await_out([victim], begin)
        back = [lambda one=name: seen.back_after(one, victim, begin) for name in BALANCERS]
        await_that(lambda: all(asked() for asked in back), "it is back", 120)
        returned = time.time() - begin
    rows = loads[0].rows
    bad, elsewhere = seen.bad(rows), seen.bad_elsewhere(rows, [victim])
    result = f"out after {_times(outs)}, back after {returned:.0f} s; {len(bad)} of {len(rows)} failed,"
    result += f" {len(elsewhere)} of them without having met it"
    return Row(what, result, "out <= 15 s; others unaffected", max(outs) <= 15 and not elsewhere)


def slow(setting: Setting) -> list[Row]:
    """2 s to the first token: of one replica, then of more than may be out at a time."""
    victim = setting.pick(0)
    row = _one(setting, "2 s to the first token", victim, lambda: faults.faulty(victim, "slow", ttft_factor=40))
    rows = [Row(row.what, row.result, "ejected; back after recovery", True)]
    half = [setting.pick(number) for number in range(len(setting.fleet.replicas) // 2)]
    least = len(setting.fleet.replicas)
    with under_load(*_load(setting)) as loads:
        for one in half:
            faults.switch(one, "slow", ttft_factor=40)
        until = time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < until:
            for name in BALANCERS:
                least = min(least, sum(one["in_rotation"] for one in status(name)["replicas"]))
            time.sleep(0.5)
        faults.clear(setting.fleet)
    count = len(setting.fleet.replicas)
    floor = count - max(1, int(0.34 * count))
    result = f"never fewer than {least} of {count} in rotation; {len(seen.bad(loads[0].rows))} failed"
    return [*rows, Row(f"{len(half)} of {count} slow at once", result, f">= {floor} in rotation", least >= floor)]
