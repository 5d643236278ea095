"""Hostile clients of every kind at once take nothing else down."""

from __future__ import annotations

import time

from tests.traffic import seen
from tests.traffic.fleet import BALANCERS, holder, sh
from tests.traffic.load import hostile, under_load

KINDS = ("slow_headers", "slow_body", "slow_reader", "big_headers", "wrong_tls", "bad_chunks", "half_open", "aborts")


def test_hostile_clients_disturb_nobody(once: None) -> None:
    begin, workers = time.time(), "pgrep -P $(systemctl show -p MainPID --value nginx) | sort"
    balancer = holder()
    before = sh(balancer, workers)
    with under_load("--rate", "15", "--tokens", "4-12") as results:
        crowd = hostile("idle", count=2000, seconds=20)
        others = hostile(*KINDS, count=4, seconds=20)
        told = [running.wait() for running in (crowd, others)]
    print([result.told for result in told])
    assert set(told[1].told) == set(KINDS)
    assert len(results[0].rows) > 100
    assert seen.bad(results[0].rows) == []
    assert seen.removals(begin) == {name: [] for name in BALANCERS}
    assert sh(balancer, workers) == before, "a worker of the engine died"
