"""Broken releases: the canary goes back by itself, nobody else is touched, no client notices."""

from __future__ import annotations

import pytest

from tests.traffic import rollout, seen
from tests.traffic.broken import CASES
from tests.traffic.fleet import ROLLED
from tests.traffic.load import under_load

LOAD = ("--rate", "40", "--tokens", "2-40*9,100-200*1", "--timeout", "120")
CANARY = "gpu1/r0"
POOL = {"llmops_rollout_pools": ["chat-fake"]}


@pytest.mark.parametrize("case", CASES)
def test_the_canary_goes_back_and_no_client_notices(case: str) -> None:
    broken = CASES[case]
    before = rollout.processes(ROLLED)
    with under_load(*LOAD) as loads:
        done = rollout.play(ROLLED, {**POOL, **broken.given()}, expected=2)
    steps = {step["name"]: step["seconds"] for step in done.entry(CANARY)["steps"]}
    print(f"{case}: back after {steps['go_back']:.0f} s, {len(loads[0].rows)} requests; {steps}")
    assert done.outcomes() == {one: "rolled_back" if one == CANARY else "untouched" for one in done.outcomes()}
    assert f"failed in the step {broken.step}" in done.printed
    assert {one for one, process in rollout.processes(ROLLED).items() if process != before[one]} <= {CANARY}
    assert seen.bad(loads[0].rows) == []
    assert len(loads[0].rows) > 200

    # what failed is not tried again, and refused without a touch
    before = rollout.processes(ROLLED)
    again = rollout.play(ROLLED, {**POOL, **broken.given()}, expected=2)
    assert "llmops_rollout_retry=true" in again.printed
    assert rollout.processes(ROLLED) == before
