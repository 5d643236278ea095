"""A small agent on a real socket."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.fakes.agent import Running

POOLS = {"g1/r0": "chat", "g2/r0": "chat", "g3/r0": "short", "g4/r0": "short"}


@pytest.fixture
def agent(tmp_path: pathlib.Path) -> Iterator[Running]:
    world = {"replicas": {replica: {"pool": pool, "inflight": 0} for replica, pool in POOLS.items()}, "minimum": 1}
    with Running(tmp_path / "agent", world) as running:
        yield running
