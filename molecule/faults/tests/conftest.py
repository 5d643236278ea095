"""The fake fleet: it is healthy before each test and must be so again after it."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tests.traffic import faults  # noqa: E402
from tests.traffic.fleet import BALANCERS, FAKE, await_healthy, sh, status  # noqa: E402


@pytest.fixture(scope="session")
def form() -> str:
    """The engine's form of this run, as the agents tell it: ``lua`` or ``native``."""
    told = {status(name)["agent"]["engine"] for name in BALANCERS}
    assert len(told) == 1, told
    return told.pop().rpartition("_")[2]


@pytest.fixture
def once(form: str) -> None:
    """For what the engine's form has no part in: seen once, with the lua form."""
    if form != "lua":
        pytest.skip("seen with the lua form: what the agent decides does not depend on the engine's form")


@pytest.fixture(autouse=True)
def healthy_before_and_after() -> Iterator[None]:
    """Each test begins and ends with the whole fleet in rotation; its own faults are ended whatever happened."""
    await_healthy(FAKE)
    begin = time.time()
    yield
    faults.clear(FAKE)
    try:
        await_healthy(FAKE)
    except AssertionError:
        for name in BALANCERS:
            print(
                f"--- {name}\n{sh(name, f'journalctl -u llm-agent -o cat --no-pager --since @{int(begin)} | tail -60')}"
            )
        raise
