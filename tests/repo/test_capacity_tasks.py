"""The role vllm refuses, with the files of the model at hand, what cannot fit; and nothing that it does not know."""

from __future__ import annotations

import json
import os
import pathlib
import types
from typing import Any

import yaml

from tests import plain_ansible
from tests.fakes import gpu as fake

from . import ansible_once
from .tree import ROOT

models = types.SimpleNamespace(**json.loads((ROOT / "tests" / "data" / "model_shapes.json").read_text()))

TASKS = ROOT / "roles" / "vllm" / "tasks" / "configure_capacity.yml"


def play(
    tmp_path: pathlib.Path,
    config: dict[str, Any],
    name: str,
    gpu_type: str = "h100-80gb",
    gpus: tuple[str, ...] = (),
    **settings: Any,
) -> list[str]:
    """A play of these tasks alone, for a replica that serves this model, on a host with these GPUs or without any."""
    model = tmp_path / name
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    replica = {"name": "r0", "model": str(model), "model_name": name, "gpus": [0, 1], "tensor_parallel_size": 2}
    replica["settings"] = {"max-model-len": 8192, "model": str(model), "port": 8000, **settings}
    known = {"__vllm_plan": [replica, {**replica, "gpus": []}], "vllm_gpu_type": gpu_type, "vllm_gpus": 8}
    known["__vllm_gpu_tier"] = yaml.safe_load((ROOT / "roles" / "vllm" / "vars" / "main.yml").read_text())[
        "__vllm_gpu_tier"
    ]
    known["ansible_python_interpreter"] = "{{ ansible_playbook_python }}"
    tasks = [{"ansible.builtin.import_tasks": str(TASKS)}]
    machine = tmp_path / f"{name}.gpus"
    seen = [fake.gpu(kind, f"0000:{number:02x}:00.0") for number, kind in enumerate(gpus, 10)]
    fake.lay_out(machine, seen)
    fake.pci_tree(machine / "devices", seen)
    content = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": known, "tasks": tasks}
    content["environment"] = {"PATH": f"{machine}:{os.environ['PATH']}"}
    content["module_defaults"] = {"llmops.vllm.gpu_info": {"pci": str(machine / "devices")}}
    (tmp_path / f"{name}.yml").write_text(json.dumps([content]))
    return ["ansible-playbook", "-i", "localhost,", str(tmp_path / f"{name}.yml")]


def test_models_by_what_they_weigh(tmp_path: pathlib.Path) -> None:
    plays = [
        play(tmp_path, models.SCOUT, "scout"),
        play(tmp_path, models.LLAMA_8B, "llama"),
        play(tmp_path, {"model_type": "whisper"}, "unknown"),
        play(tmp_path, models.LLAMA_8B, "same", "h100-80gb", ("t4", "h100")),
        play(tmp_path, models.LLAMA_8B, "other", "h100-80gb", ("a100", "a100")),
        play(tmp_path, models.SCOUT, "of-no-tier", "", ("t4", "t4")),
        play(tmp_path, models.SCOUT, "spread", **{"data-parallel-size": 4, "enable-expert-parallel": True}),
    ]
    env = plain_ansible.environment(tmp_path)
    refused, good, unknown, same, other, of_no_tier, spread = ansible_once.run(plays, cwd=tmp_path, env=env)
    assert refused.rc == 2, refused.out
    words = "localhost: scout does not fit 2 x h100-80gb for replica r0: the weights take 100.4 GiB of each GPU"
    assert words in " ".join(refused.out.split())
    assert "set vllm_tensor_parallel_size to 4, or set quantization to fp8" in " ".join(refused.out.split())
    assert good.rc == 0, good.out
    assert unknown.rc == 0, unknown.out
    assert "whether unknown fits: config.json cannot be understood" in " ".join(unknown.out.split())
    assert same.rc == 0, same.out
    assert other.rc == 2, other.out
    words = "localhost: vllm_gpu_type is h100-80gb, and the GPUs here are NVIDIA A100-SXM4-80GB: set a100-80gb"
    assert words in " ".join(other.out.split())
    assert of_no_tier.rc == 2, of_no_tier.out
    words = "localhost: of-no-tier does not fit 2 x 15.0 GiB for replica r0: the weights take 100.4 GiB of each GPU"
    assert words in " ".join(of_no_tier.out.split())
    assert spread.rc == 0, spread.out
    words = "localhost: whether spread fits: data-parallel-size is 4, and the experts are spread over all of its GPUs"
    assert words in " ".join(spread.out.split())
    assert "whether llama fits" not in good.out
