"""The real fleet: it is healthy before each test and must be so again after it."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tests.traffic import rollout  # noqa: E402
from tests.traffic.fleet import REAL, await_healthy  # noqa: E402

HEALTHY_SECONDS = 180  # a real vLLM starts for most of a minute, others beside it


@pytest.fixture(autouse=True)
def healthy_before_and_after() -> Iterator[None]:
    await_healthy(REAL, HEALTHY_SECONDS)
    yield
    await_healthy(REAL, HEALTHY_SECONDS)
    assert rollout.leases() == {}
