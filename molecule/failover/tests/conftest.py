"""The real fleet: it is healthy before each test and must be so again after it."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tests.traffic.fleet import BALANCERS, REAL, await_healthy, sh  # noqa: E402

HEALTHY_SECONDS = 180  # a real vLLM starts for most of a minute, others beside it


@pytest.fixture(autouse=True)
def healthy_before_and_after() -> Iterator[None]:
    await_healthy(REAL, HEALTHY_SECONDS)
    begin = int(time.time())
    yield
    try:
        await_healthy(REAL, HEALTHY_SECONDS)
    except AssertionError:
        for name in BALANCERS:
            units = "-u llm-agent -u keepalived -u nginx"
            print(f"--- {name}\n{sh(name, f'journalctl {units} -o cat --no-pager --since @{begin} | tail -80')}")
        raise
