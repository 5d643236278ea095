"""Releases that are broken in one way each: the canary goes back by itself, nobody else is touched, no client notices."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.traffic import rollout, seen
from tests.traffic.fleet import ROLLED
from tests.traffic.load import under_load

LOAD = ("--rate", "40", "--tokens", "2-40*9,100-200*1", "--timeout", "120")
GOLDEN = str(pathlib.Path(__file__).parent / "golden.yml")
CANARY = "gpu1/r0"
ONLY = {"llmops_rollout_pools": ["chat-fake"]}


@dataclass
class Broken:
    """A release, as a change of the environment of the fake, and the step at which it must be noticed."""

    step: str
    environment: dict[str, str]
    variables: dict[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        usual = {"FAKE_VLLM_START_SECONDS": "0.5", "FAKE_VLLM_TTFT_MS": "50", "FAKE_VLLM_ITL_MS": "20"}
        return {**ONLY, **self.variables, "vllm_environment": {**usual, **self.environment}}


CASES = {
    "fails only at start": Broken("ready", {"FAKE_VLLM_FAULT": "dies_at_start"}),
    "never loads its model": Broken("ready", {"FAKE_VLLM_START_SECONDS": "900"}, {"llmops_rollout_ready_timeout": 10}),
    "answers nonsense": Broken("golden", {"FAKE_VLLM_FAULT": "wrong_answers"}, {"llmops_rollout_golden": GOLDEN}),
    "is slower": Broken("shadow", {"FAKE_VLLM_TTFT_MS": "400", "FAKE_VLLM_ITL_MS": "90"}),
    "breaks its streams": Broken("shadow", {"FAKE_VLLM_FAULT": "sse_error"}),
    "dies after a minute": Broken("burn_in", {"FAKE_VLLM_FAULT": "dies_after_start"}, {"llmops_rollout_burn_in": 75}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_canary_goes_back_and_no_client_notices(case: str) -> None:
    broken = CASES[case]
    before = rollout.processes(ROLLED)
    with under_load(*LOAD) as loads:
        done = rollout.play(ROLLED, broken.given(), expected=2)
    entry = done.entry(CANARY)
    back = next(step["seconds"] for step in entry["steps"] if step["name"] == "go_back")
    print(f"{case}: noticed in {entry['steps'][-2]['name']}, rollout {done.seconds:.0f} s; {entry['reason'][:200]}")
    print([(step["name"], step["seconds"]) for step in entry["steps"]], back)
    assert done.outcomes() == {one: "rolled_back" if one == CANARY else "untouched" for one in done.outcomes()}
    assert f"failed in the step {broken.step}" in done.printed
    assert {one for one, process in rollout.processes(ROLLED).items() if process != before[one]} <= {CANARY}
    assert seen.bad(loads[0].rows) == []
    assert len(loads[0].rows) > 200

    # what failed is not tried again, and refused without a touch
    before = rollout.processes(ROLLED)
    again = rollout.play(ROLLED, broken.given(), expected=2)
    assert "llmops_rollout_retry=true" in again.printed
    assert rollout.processes(ROLLED) == before
