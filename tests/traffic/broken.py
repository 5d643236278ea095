"""Releases that are broken in one way each, as changes of the fake's environment."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import Any

GOLDEN = pathlib.Path(__file__).parent / "golden.yml"
USUAL = {"FAKE_VLLM_START_SECONDS": "0.5", "FAKE_VLLM_TTFT_MS": "50", "FAKE_VLLM_ITL_MS": "20"}


@dataclass(frozen=True)
class Broken:
    """A release, and the step of the rollout at which it must be noticed."""

    step: str
    environment: dict[str, str]
    variables: dict[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """Variables of a rollout to it."""
        return {**self.variables, "vllm_environment": {**USUAL, **self.environment}}


CASES = {
    "fails only at start": Broken("ready", {"FAKE_VLLM_FAULT": "dies_at_start"}),
    "never loads its model": Broken("ready", {"FAKE_VLLM_START_SECONDS": "900"}, {"llmops_rollout_ready_timeout": 10}),
    "answers nonsense": Broken("golden", {"FAKE_VLLM_FAULT": "wrong_answers"}, {"llmops_rollout_golden": str(GOLDEN)}),
    "is slower": Broken("shadow", {"FAKE_VLLM_TTFT_MS": "400", "FAKE_VLLM_ITL_MS": "90"}),
    "breaks its streams": Broken("shadow", {"FAKE_VLLM_FAULT": "sse_error"}),
    "dies after a minute": Broken("burn_in", {"FAKE_VLLM_FAULT": "dies_after_start"}, {"llmops_rollout_burn_in": 75}),
}
