"""Facts of a model from its files, and what these weigh on each GPU: the headers are real, the weights are holes."""

from __future__ import annotations

import json
import math
import pathlib
import struct
import types
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._capacity import files, weights
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.kv import Cache
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.shape import CapacityError, shape
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._model.facts import facts
from ansible_collections.llmops.vllm.plugins.module_utils._model.safetensors import ModelError

models = types.SimpleNamespace(
    **json.loads((pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "model_shapes.json").read_text())
)

_BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "I32": 4}
Tensors = dict[str, tuple[str, list[int]]]


def write(path: pathlib.Path, tensors: Tensors) -> None:
    """Write a safetensors file whose data are a hole."""
    header, end = {}, 0
    for name, (dtype, sides) in tensors.items():
        start, end = end, end + math.prod(sides) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": sides, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with open(path, "r+b") as file:
        file.truncate(8 + len(text) + end)


def dense(config: dict[str, Any], dtype: str = "BF16", extra_layers: int = 0) -> Tensors:
    """The tensors of a Qwen2 or Llama, as the hub has them."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found: Tensors = {
        "model.embed_tokens.weight": ("BF16", [config["vocab_size"], hidden]),
        "model.norm.weight": ("BF16", [hidden]),
    }
    for index in range(config["num_hidden_layers"] + extra_layers):
        layer = f"model.layers.{index}"
        for name, sides in (
            ("self_attn.q_proj", [hidden, hidden]),
            ("self_attn.k_proj", [keys, hidden]),
            ("self_attn.v_proj", [keys, hidden]),
            ("self_attn.o_proj", [hidden, hidden]),
            ("mlp.gate_proj", [width, hidden]),
            ("mlp.up_proj", [width, hidden]),
            ("mlp.down_proj", [hidden, width]),
        ):
            found[f"{layer}.{name}.weight"] = (dtype, sides)
        for name, side in (("q", hidden), ("k", keys), ("v", keys)):
            found[f"{layer}.self_attn.{name}_proj.bias"] = ("BF16", [side])
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{layer}.{name}.weight"] = ("BF16", [hidden])
    return found


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    """Qwen2.5 0.5B in two files with an index, and a second copy that is not served."""
    (tmp_path / "config.json").write_text(json.dumps(models.QWEN25_05B))
    tensors = dense(models.QWEN25_05B)
    names = list(tensors)
    shards = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, mine in shards.items():
        write(tmp_path / file, {name: tensors[name] for name in mine})
    write(tmp_path / "consolidated.safetensors", tensors)
    index = {"weight_map": {name: file for file, mine in shards.items() for name in mine}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_facts_are_those_of_the_files(model: pathlib.Path) -> None:
    found = facts(model)
    assert found["kind"] == "model"
    assert (found["parameters"], found["weight_bytes"]) == (494_032_768, 988_065_536)
    assert found["bytes_by_dtype"] == {"BF16": 988_065_536}
    assert (found["layers"], found["heads"], found["kv_heads"], found["head_dim"]) == (24, 14, 2, 64)
    assert (found["context"], found["dtype"], found["quantization"]) == (32768, "bfloat16", "")


def test_files_without_an_index_are_all_read_but_no_second_copy(model: pathlib.Path) -> None:
    (model / "model.safetensors.index.json").unlink()
    assert facts(model)["weight_bytes"] == 988_065_536


def test_shard_that_is_missing_is_told(model: pathlib.Path) -> None:
    (model / "model-2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-2\.safetensors: not there, though the index names it"):
        facts(model)


@pytest.mark.parametrize("cache", [Cache(), Cache(2), Cache(1, 2), Cache(2, 2)])
def test_files_and_shape_agree_on_each_gpu(model: pathlib.Path, cache: Cache) -> None:
    known = shape(models.QWEN25_05B)
    by_files = files.per_gpu(files.tensors(model), known, cache)
    assert by_files == pytest.approx(weights.per_gpu(known, cache), rel=0.001)


def test_files_of_quantised_weights_weigh_what_they_weigh(tmp_path: pathlib.Path) -> None:
    config = {**models.QWEN25_05B, "quantization_config": {"quant_method": "fp8"}}
    tensors = dense(config, "F8_E4M3")
    scales = {name + "_scale": ("F32", [1]) for name, (dtype, _sides) in tensors.items() if dtype == "F8_E4M3"}
    write(tmp_path / "model.safetensors", {**tensors, **scales})
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = files.tensors(tmp_path)
    assert files.per_gpu(found, shape(config), Cache()) == sum(tensor.bytes for tensor in found)
    assert facts(tmp_path)["parameters"] == 494_032_768  # by the shape: scales are none


def test_32_bit_files_are_served_in_16_bits_and_quantised_while_loading(tmp_path: pathlib.Path) -> None:
    config = {**models.QWEN25_05B, "torch_dtype": "float32"}
    write(tmp_path / "model.safetensors", dense(config, "F32"))
    found, known = files.tensors(tmp_path), shape(config)
    assert files.per_gpu(found, known, Cache()) == 988_065_536
    eight = files.per_gpu(found, known, Cache(), "fp8")
    assert eight == pytest.approx(weights.per_gpu(known, Cache(), "fp8"), rel=0.001)
    assert eight < 988_065_536 * 0.7


def test_layers_that_predict_ahead_are_not_loaded(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "model.safetensors", dense(models.QWEN25_05B, extra_layers=2))
    (tmp_path / "config.json").write_text(json.dumps(models.QWEN25_05B))
    assert files.per_gpu(files.tensors(tmp_path), shape(models.QWEN25_05B), Cache()) == 988_065_536
    assert facts(tmp_path)["parameters"] == 494_032_768
    assert facts(tmp_path)["weight_bytes"] > 988_065_536


def test_adapter_is_recognised(tmp_path: pathlib.Path) -> None:
    told = {
        "peft_type": "LORA",
        "r": 16,
        "lora_alpha": 32,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "example/llama",
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    write(tmp_path / "adapter_model.safetensors", {"base_model.model.a.lora_A.weight": ("BF16", [16, 64])})
    assert facts(tmp_path) == {
        "kind": "adapter",
        "method": "LORA",
        "rank": 16,
        "alpha": 32,
        "target_modules": ["q_proj", "v_proj"],
        "base_model": "example/llama",
        "weight_bytes": 2048,
        "tensors": 1,
        "bytes_by_dtype": {"BF16": 2048},
    }


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("none.txt", "", ModelError, "cannot be read as JSON"),
        ("config.json", "{", ModelError, "cannot be read as JSON"),
        ("config.json", "[]", ModelError, "is no mapping: give the directory of a model revision"),
        ("config.json", '{"architectures": ["CLIP"]}', CapacityError, "is it that of a language model?"),
        ("model.safetensors", "cut", ModelError, "cut off within its header"),
    ],
)
def test_what_is_no_model_is_told(
    tmp_path: pathlib.Path, name: str, content: str, error: type[LlmopsError], words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error) as told:
        facts(tmp_path)
    assert words in str(told.value)
    assert str(tmp_path) in str(told.value)


def test_directory_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelError, match="no directory: give that of a model revision"):
        facts(tmp_path / "none")
