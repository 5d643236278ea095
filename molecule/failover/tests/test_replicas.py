"""Replicas of real vLLM that die or freeze under load, and one that is drained and put back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.traffic import faults, seen
from tests.traffic.fleet import BALANCERS, REAL, Replica, await_that, row
from tests.traffic.load import under_load

DEAD_SECONDS, OUT_SECONDS = 2, 15
LATE_SECONDS = 2  # of a log line, and of reading it, on two busy cores
LOAD = ("--rate", "3", "--tokens", "4-16", "--words", "5-20", "--timeout", "90")
KILLED, ENGINE, WORKER, CUT_OFF, DRAINED = (Replica(name, "r0") for name in ("gpu2", "gpu1", "gpu3", "gpu2", "gpu1"))


def await_out(replica: Replica, begin: float, seconds: float) -> list[float]:
    """Wait until the replica is out of rotation on every balancer and return after how many seconds it was."""
    for balancer in BALANCERS:
        out = f"{replica.id} is out on {balancer}"
        await_that(lambda name=balancer: seen.out_after(name, replica, begin) is not None, out, seconds + LATE_SECONDS)
    found = [seen.out_after(name, replica, begin) or 0.0 for name in BALANCERS]
    print(f"{replica.id} out after {found} s")
    assert max(found) <= seconds, found
    return found


def test_killed_replica() -> None:
    with under_load(*LOAD) as results:
        begin = time.time()
        faults.kill_unit(KILLED.host, KILLED.unit)
        await_out(KILLED, begin, DEAD_SECONDS)
        time.sleep(4)  # requests after the fault, which must be good
    rows = results[0].rows
    assert seen.bad_before_first_byte(rows) == []
    assert len(seen.started_after(rows, begin + 1)) > 5
    assert seen.bad_started_after(rows, begin + 1) == []


FROZEN: dict[str, tuple[Replica, Callable[[], AbstractContextManager[None]]]] = {
    "engine": (ENGINE, lambda: faults.frozen(ENGINE, faults.ENGINE)),
    "worker": (WORKER, lambda: faults.frozen(WORKER, faults.WORKER)),
}


@pytest.mark.parametrize("case", FROZEN)
def test_frozen_replica(case: str) -> None:
    replica, frozen = FROZEN[case]
    with under_load(*LOAD) as results:
        begin = time.time()
        with frozen():
            await_out(replica, begin, OUT_SECONDS)
        back = [lambda one=name: seen.back_after(one, replica, begin) for name in BALANCERS]
        await_that(lambda: all(asked() for asked in back), f"{replica.id} is back", 90)
    # What was in the frozen engine went on with it; nobody else felt anything.
    assert seen.bad(results[0].rows) == []


def test_host_without_network() -> None:
    with under_load(*LOAD) as results:
        begin = time.time()
        with faults.without_network(CUT_OFF.host):
            await_out(CUT_OFF, begin, DEAD_SECONDS)
            time.sleep(5)  # requests after the fault, which must be good
    rows = results[0].rows
    assert len(seen.started_after(rows, begin + DEAD_SECONDS)) > 5
    assert seen.bad_started_after(rows, begin + DEAD_SECONDS) == []
    # One that had begun may wait for its silent replica; what had not begun found another.
    assert [entry for entry in seen.bad_before_first_byte(rows) if entry["verdict"] != "timeout"] == []


def test_drain_and_undrain_fail_nobody() -> None:
    with under_load(*LOAD) as results:
        REAL.playbook("drain", "-e", f"llmops_target={DRAINED.id}")
        for balancer in BALANCERS:
            entry = row(balancer, DRAINED)
            assert (entry["administrative"], entry["in_rotation"], entry["running"]) == ("drained", False, 0), entry
        REAL.playbook("undrain", "-e", f"llmops_target={DRAINED.id}")
        await_that(lambda: all(row(name, DRAINED)["in_rotation"] for name in BALANCERS), "it is back in rotation")
    assert len(results[0].rows) > 20
    assert seen.bad(results[0].rows) == []
