"""The fake fleet: it is healthy before each test and must be so again after it."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tests.traffic import faults, rollout  # noqa: E402
from tests.traffic.fleet import ROLLED, await_healthy, await_that  # noqa: E402


@pytest.fixture(autouse=True)
def healthy_before_and_after() -> Iterator[None]:
    await_healthy(ROLLED)
    yield
    faults.clear(ROLLED)
    await_healthy(ROLLED)
    # one that could not be given back, as its balancer was away, ends by itself
    await_that(lambda: rollout.leases() == {}, "no pool is held any more", 130)
