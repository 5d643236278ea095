"""The fake fleet for Prometheus: a replica of it is as much to keep as a real one, and a large fleet has its pools."""

from __future__ import annotations

import pathlib

from tests.fakes.metrics import story
from tests.fakes.metrics.fleet import Fleet

REAL = (pathlib.Path(__file__).resolve().parents[1] / "data" / "vllm_metrics_0.32.0.txt").read_text()
# A real one told 399 at two paths and 417 at more, without the times at which series began.
SERIES = range(399, 421)


def test_a_replica_has_the_series_of_a_real_one() -> None:
    fleet = Fleet(0.0)
    fleet.advance(10)
    text = fleet.text("vllm", "gpu1")
    assert text is not None
    told = [line.partition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    kept = [series for series in told if not series.partition("{")[0].endswith("_created")]
    assert {series.partition("{")[0] for series in kept} == {
        name for name in REAL.splitlines() if not name.startswith("#")
    }
    assert len(kept) == len(set(kept)) and len(kept) in SERIES
    assert len(told) > len(kept) + 50


def test_a_large_fleet_is_shared_out_over_its_pools() -> None:
    pools = story.large(102)
    assert [len(hosts) for hosts in pools.values()] == [21, 21, 20, 20, 20]
    assert len({host for hosts in pools.values() for host in hosts}) == 102
    fleet = Fleet(0.0, pools=pools)
    fleet.advance(4)
    assert len(fleet.targets()["vllm"]) == 102
    assert all(fleet.text("vllm", target["host"]) for target in fleet.targets()["vllm"])
