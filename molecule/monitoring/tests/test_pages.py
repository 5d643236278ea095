"""What breaks wakes somebody, once and for the right reason; what is meant wakes nobody."""

from __future__ import annotations

import time

from tests.traffic import faults, pages, rollout
from tests.traffic.fleet import WATCHED_REAL, await_that

CRASHED, FROZEN = WATCHED_REAL.replicas[:2]
PAGE_SECONDS = 60  # a scrape, its `for`, an evaluation, and the wait of the group
END_SECONDS = 300  # until Alertmanager tells a group again


def test_nobody_is_woken_while_all_is_well(pager: pages.Pager) -> None:
    # before somebody was on call, notifications failed
    await_that(lambda: not pages.firing("Watchdog", "LLMNotificationsFailing"), "no alert fires", 120)
    assert pager.came() == []


def test_the_watchdog_tells_that_it_lives(pager: pages.Pager) -> None:
    await_that(lambda: pager.came(path="/watchdog"), "the watchdog's message comes", 120)


def test_a_crash_pages_once(pager: pages.Pager) -> None:
    begin = time.time()
    faults.kill_unit(CRASHED.host, CRASHED.unit)
    pager.await_page("LLMReplicaDown", begin, PAGE_SECONDS, replica=CRASHED.id)
    pager.await_end("LLMReplicaDown", begin, END_SECONDS)
    assert {page.name for page in pager.came(begin)} == {"LLMReplicaDown"}


def test_an_engine_that_stands_still_pages_once(pager: pages.Pager) -> None:
    begin = time.time()
    with faults.frozen(FROZEN, faults.ENGINE):
        pager.await_page("LLMEngineStuck", begin, PAGE_SECONDS, replica=FROZEN.id)
    pager.await_end("LLMEngineStuck", begin, END_SECONDS)
    assert {page.name for page in pager.came(begin)} == {"LLMEngineStuck"}


def test_a_restart_by_a_rollout_wakes_nobody(pager: pages.Pager) -> None:
    begin = time.time()
    done = rollout.play(WATCHED_REAL, {"llmops_rollout_replicas": [CRASHED.id]}, action="restart")
    assert done.outcomes() == {CRASHED.id: "done"}
    assert pager.came(begin) == []
