"""What dies on the balancer that holds the address: requests that start a second later succeed.

Each request has a connection of its own: what a client keeps open ends with the balancer that it was open to.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.traffic import faults, seen
from tests.traffic.fleet import await_that, holder, sh
from tests.traffic.load import under_load

AFTER_SECONDS = 1
LOAD = ("--rate", "5", "--tokens", "4-8", "--words", "5-20", "--timeout", "60", "--new-connections")
WATCHED_SECONDS = 8  # requests after the fault, which must be good


def kill(unit: str) -> Callable[[str], None]:
    return lambda balancer: faults.kill_unit(balancer, unit)


def cut_off(balancer: str) -> None:
    with faults.without_network(balancer):
        time.sleep(WATCHED_SECONDS)


# case: what happens to the holder
CASES: dict[str, Callable[[str], None]] = {
    "engine killed": kill("nginx"),
    "keepalived killed": kill("keepalived"),
    "host without network": cut_off,
}


@pytest.mark.parametrize("case", CASES)
def test_requests_a_second_later_succeed(case: str) -> None:
    with under_load(*LOAD) as results:
        balancer, begin = holder(), time.time()
        CASES[case](balancer)
        time.sleep(max(0.0, begin + WATCHED_SECONDS - time.time()))
    rows = results[0].rows
    print(f"{case}: {len(rows)} requests, {len(seen.bad(rows))} failed")
    assert len(seen.started_after(rows, begin + AFTER_SECONDS)) > 10
    assert seen.bad_started_after(rows, begin + AFTER_SECONDS) == []


def test_killed_agent_disturbs_nobody_and_moves_nothing() -> None:
    with under_load(*LOAD) as results:
        balancer = holder()
        before = sh(balancer, "systemctl show -p InvocationID --value llm-agent")
        faults.kill_unit(balancer, "llm-agent")
        again = "systemctl is-active -q llm-agent && systemctl show -p InvocationID --value llm-agent"
        await_that(lambda: sh(balancer, again) != before, "the agent runs again", 30)
        assert holder() == balancer
    assert len(results[0].rows) > 5
    assert seen.bad(results[0].rows) == []
