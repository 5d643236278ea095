"""``llmops.vllm.plan`` as an operator runs it, by real ansible: as the guide prints it, with prices of an inventory."""

from __future__ import annotations

import json
import pathlib
import re
import types

from ansible_collections.llmops.vllm.plugins.module_utils._gpu.prices import PRICES

from tests import plain_ansible

from . import ansible_once
from .tree import ROOT

models = types.SimpleNamespace(**json.loads((ROOT / "tests" / "data" / "model_shapes.json").read_text()))

PLAY = ["ansible-playbook", "llmops.vllm.plan"]
GUIDE = (ROOT / "docs" / "sizing.md").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of the guide in a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_it_is_as_the_guide_says(tmp_path: pathlib.Path) -> None:
    config = {**models.SCOUT, "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text(json.dumps(config))
    (tmp_path / "plan.yml").write_text(blocks("yaml")[0])
    hosts = {
        "gpu1": {"llmops_gpu_type": "h100-80gb", "llmops_price_usd_per_hour": 16, "vllm_gpus": 8},
        "gpu2": {"llmops_gpu_type": "H200", "llmops_price_usd_per_hour": 12, "vllm_gpus": 4},  # another word for a tier
        "gpu3": {"llmops_gpu_type": "our own", "llmops_price_usd_per_hour": 1},
    }
    (tmp_path / "priced.json").write_text(json.dumps({"llm_servers": {"hosts": hosts}}))
    (tmp_path / "plain.json").write_text(json.dumps({"llm_servers": {"hosts": {"gpu1": {}}}}))
    env = plain_ansible.environment(tmp_path)
    kinds = ["h100-80gb", "a100-40gb", "h200-141gb"]
    paid = {"llmops_plan_file": str(tmp_path / "plan.json"), "llmops_plan_gpu_types": kinds}
    paid["llmops_plan_usd_per_gpu_hour"] = {}  # those of the hosts, then
    beside = {"llmops_plan_model_config": "files/config.json", "llmops_plan_gpu_types": ["h100"]}
    (tmp_path / "variants.yml").write_text(blocks("yaml")[1])
    (tmp_path / "llama-70b").mkdir()
    (tmp_path / "llama-70b" / "config.json").write_text(json.dumps(models.LLAMA_70B))
    as_printed, variants, priced, wrong, none = ansible_once.run(
        [
            [*PLAY, "-i", "plain.json", "-e", "@plan.yml"],
            [*PLAY, "-i", "plain.json", "-e", "@variants.yml"],
            [*PLAY, "-i", "priced.json", "-e", "@plan.yml", "-e", json.dumps(paid)],
            [*PLAY, "-i", "priced.json", "-e", json.dumps(beside)],
            [*PLAY, "-i", "plain.json"],
        ],
        cwd=tmp_path,
        env=env,
    )
    assert as_printed.rc == 0, as_printed.out
    of_reference, of_variants = (block.splitlines() for block in blocks("text") if block.startswith("Load: "))
    for done, lines in ((as_printed, of_reference), (variants, of_variants)):
        for line in filter(None, lines):
            assert f'"{line}"' in done.out, line
        assert "WARNING" not in done.out
    assert priced.rc == 0, priced.out
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [row["sizing"]["usd_per_gpu_hour"] for row in written] == [2, PRICES["a100-40gb"].usd, 3]
    assert [row["tensor_parallel_size"] for row in written] == [2, 8, 2]
    assert wrong.rc == 2 and "'h100' is no tier: give one of t4, " in " ".join(wrong.out.split())
    assert none.rc == 2 and "llmops_plan_model_config is ''" in " ".join(none.out.split())
