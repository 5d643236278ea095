"""``llmops.vllm.plan`` as an operator runs it, by real ansible: with an inventory, without one, and asked wrongly."""

from __future__ import annotations

import json
import os
import pathlib

from tests import model_shapes as models

from . import ansible_once
from .tree import ROOT

PLAY = ["ansible-playbook", "llmops.vllm.plan"]


def test_it_shows_the_reference_deployment_or_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    config = {**models.SCOUT, "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    hosts = {"gpu1": {"llmops_gpu_type": "h100-80gb", "llmops_price_usd_per_hour": 21.52, "vllm_gpus": 8}}
    (tmp_path / "hosts.json").write_text(json.dumps({"llm_servers": {"hosts": hosts}}))
    env = {**os.environ, "ANSIBLE_INVENTORY": str(tmp_path / "hosts.json"), "ANSIBLE_HOME": str(tmp_path / "home")}
    given = {
        "llmops_plan_model_config": str(tmp_path / "config.json"),
        "llmops_plan_gpu_types": ["h100-80gb", "a100-40gb"],
        "llmops_plan_flags": {"max-model-len": 8192},
        "llmops_plan_tokens_per_second": {"h100-80gb": 3000},
        "llmops_plan_file": str(tmp_path / "plan.json"),
    }
    beside = {"llmops_plan_model_config": "config.json", "llmops_plan_gpu_types": ["h100"]}  # beside the inventory
    told, kind, none = ansible_once.run(
        [[*PLAY, "-e", json.dumps(given)], [*PLAY, "-e", json.dumps(beside)], PLAY],
        cwd=ROOT,
        env=env | {"ANSIBLE_NOCOLOR": "1"},
    )
    assert told.rc == 0, told.out
    assert "2 x h100-80gb" in told.out and "6 (3 off peak)" in told.out and "23,564" in told.out
    assert "WARNING" not in told.out
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written[0]["sizing"]["usd_per_gpu_hour"] == 2.69
    assert [row["tensor_parallel_size"] for row in written] == [2, 4]
    assert kind.rc == 2 and "'h100' is no tier: give one of t4, " in " ".join(kind.out.split())
    assert none.rc == 2 and "llmops_plan_model_config is ''" in " ".join(none.out.split())
