"""Molecule's scenarios, a step a test: the durations of the steps are part of what is shown."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Not here, and run by hand (`molecule test -s rollout`), half an hour each: `failover`, `faults`, `rollout`,
# `rollout_broken`, `interrupted`.
SCENARIOS = {"default": ["destroy", "create", "check", "converge", "idempotence", "verify"]}
STEP_SECONDS = 1800
STEPS = [(scenario, step) for scenario, steps in SCENARIOS.items() for step in steps]
failed: set[str] = set()


def test_images_and_wheels_are_there(capfd: pytest.CaptureFixture[str]) -> None:
    """Made here rather than within `molecule create`, which shows no progress."""
    with capfd.disabled():
        print(flush=True)
        subprocess.run([sys.executable, "-m", "tools.sandbox", "hosts"], cwd=ROOT, check=True, timeout=STEP_SECONDS)


@pytest.mark.parametrize(("scenario", "step"), STEPS, ids=lambda value: value)
def test_molecule(scenario: str, step: str, capfd: pytest.CaptureFixture[str]) -> None:
    if scenario in failed:
        pytest.fail(f"an earlier step of the scenario {scenario} failed")
    failed.add(scenario)
    with capfd.disabled():  # a step takes minutes: the reader sees it go on
        print(f"\n--- molecule {step} -s {scenario}", flush=True)
        done = subprocess.run(
            ["molecule", step, "-s", scenario],
            cwd=ROOT,
            env=dict(os.environ, MOLECULE_PROJECT_DIRECTORY=str(ROOT), MOLECULE_COMMAND_BORDERS="false"),
            timeout=STEP_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        _print_journals()
    assert done.returncode == 0, f"molecule {step} -s {scenario} ended with {done.returncode}: see its output above"
    failed.discard(scenario)


def _print_journals() -> None:
    """A failing step prints what the services said."""
    balancer, server = ["nginx", "llm-agent", "keepalived"], ["vllm@r0", "vllm@r1", "vllm-firewall"]
    for host, units in {"lb": balancer, "gpu": server}.items():
        for number in (1, 2, 3):
            for unit in units:
                command = [
                    "docker",
                    "exec",
                    f"llmops-{host}{number}",
                    "journalctl",
                    "-u",
                    unit,
                    "-n",
                    "30",
                    "--no-pager",
                ]
                told = subprocess.run(command, capture_output=True, text=True, check=False)
                if told.returncode == 0 and "No entries" not in told.stdout:
                    print(f"--- {host}{number} {unit}\n{told.stdout}")
