"""The watched fleet on real vLLM: under load all the time, somebody on call, healthy before and after each test."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tests.traffic import pages  # noqa: E402
from tests.traffic.fleet import WATCHED_REAL, await_healthy  # noqa: E402
from tests.traffic.load import under_load  # noqa: E402

HEALTHY_SECONDS = 180  # a real vLLM starts for most of a minute, others beside it
LOAD = ("--rate", "1.5", "--tokens", "4-24*9,100-200*1", "--words", "5-20", "--timeout", "180")
IMPATIENT = ("--rate", "0.1", "--tokens", "300-400", "--words", "5-20", "--streamed", "1", "--timeout", "1")


@pytest.fixture(autouse=True)
def healthy_before_and_after() -> Iterator[None]:
    await_healthy(WATCHED_REAL, HEALTHY_SECONDS)
    yield
    await_healthy(WATCHED_REAL, HEALTHY_SECONDS)


@pytest.fixture(scope="session", autouse=True)
def load() -> Iterator[None]:
    await_healthy(WATCHED_REAL, HEALTHY_SECONDS)
    with under_load(*LOAD), under_load(*IMPATIENT, client="demo"):
        yield


@pytest.fixture(scope="session")
def pager() -> Iterator[pages.Pager]:
    with pages.pager() as found:
        yield found
