"""Capacity: shapes, parameters, weights, KV cache and what fits, against published figures and vLLM's own rules."""

from __future__ import annotations

import json
import pathlib
import re
import types
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._capacity import files, kv, parts, weights
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.change import Gpus, changes
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.fit import Model, fit, sizes, useful_concurrency
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.flags import FITTED, Flags, flags, tokens
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.shape import CapacityError, shape
from ansible_collections.llmops.vllm.plugins.module_utils._check import capacity as check_capacity
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import tiers as gpu_tiers
from ansible_collections.llmops.vllm.plugins.module_utils._gpu.prices import PRICES

models = types.SimpleNamespace(
    **json.loads((pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "model_shapes.json").read_text())
)

Config = Mapping[str, Any]
GB, GIB = 10**9, 1024**3
INT4 = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
FP8 = {"quantization_config": {"quant_method": "fp8"}}


@pytest.mark.parametrize(
    ("config", "published", "active"),
    [
        (models.LLAMA_8B, 8_030_261_248, 8_030_261_248),
        (models.LLAMA_70B, 70_553_706_496, 70_553_706_496),
        (models.LLAMA2_7B, 6_738_415_616, 6_738_415_616),
        (models.MISTRAL_WINDOW, 7_241_732_096, 7_241_732_096),
        (models.QWEN25_05B, 494_032_768, 494_032_768),
        (models.QWEN3_8B, 8_190_735_360, 8_190_735_360),
        (models.GEMMA3_27B, 27_009_346_304, 27_009_346_304),
        # mixtures of experts: all experts, and about the active parameters that their names tell
        (models.MIXTRAL, 46_702_792_704, 12.9e9),
        (models.QWEN3_30B_A3B, 30_532_122_624, 3.3e9),
        (models.SCOUT, 107.77e9, 17e9),
        (models.DEEPSEEK_V3, 671_026_419_200, 37e9),
        (models.GPT_OSS_20B, 20_914_757_184, 4.19e9),  # 3.6 without the table of tokens, as it is named
    ],
)
def test_parameters_are_those_published(config: Config, published: float, active: float) -> None:
    found = shape(config)
    assert parts.parameters(found) == pytest.approx(published, rel=1e-5)
    assert parts.active_parameters(found) == pytest.approx(active, rel=0.03)


def test_parameters_of_an_unknown_family_are_not_guessed() -> None:
    found = shape({**models.LLAMA_8B, "model_type": "something_new"})
    assert parts.parameters(found) is None
    assert weights.per_gpu(found, kv.Cache()) is None
    assert kv.kv_bytes_per_token(found, kv.Cache()) == 131072  # this does not depend on it


@pytest.mark.parametrize(
    ("config", "change", "size", "gigabytes"),
    [
        (models.LLAMA_8B, {}, 1, 16.06),
        (models.LLAMA_8B, FP8, 1, 9.08),  # tables stay in 16 bits
        (models.LLAMA_8B, INT4, 1, 5.73),  # 5.7 GB on the hub
        (models.LLAMA_70B, {}, 1, 141.1),
        (models.LLAMA_70B, FP8, 1, 72.7),  # 72.7 GB on the hub
        (models.LLAMA_70B, INT4, 1, 39.8),  # 39.8 GB on the hub
        (models.LLAMA_70B, {}, 4, 35.3),
        (models.SCOUT, {}, 1, 215.5),
        (models.DEEPSEEK_V3, {}, 1, 672.9),  # 671 GB and the tables once more in 16 bits
        (models.GPT_OSS_20B, {}, 1, 13.8),  # 13.8 GB on the hub
    ],
)
def test_weights(config: Config, change: Config, size: int, gigabytes: float) -> None:
    found = weights.per_gpu(shape({**config, **change}), kv.Cache(tensor_parallel_size=size))
    assert found is not None
    assert found / GB == pytest.approx(gigabytes, rel=0.005)


def test_weights_that_no_gpu_can_share_are_on_each() -> None:
    """More GPUs than heads of keys: copies of these, and norms, make eight parts of the whole more than the whole."""
    found = shape({**models.LLAMA_8B, "num_key_value_heads": 2})
    whole, eighth = (weights.per_gpu(found, kv.Cache(tensor_parallel_size=size)) or 0 for size in (1, 8))
    copies = 32 * 2 * 4096 * 2 * 128 * 2 * (8 / 2 - 1)
    assert eighth * 8 - whole == pytest.approx(copies, rel=0.02)


def test_tied_tables_take_memory_at_both_ends_of_a_pipeline() -> None:
    found = shape(models.QWEN25_05B)
    table = 151936 * 896 * 2
    one, two = (weights.per_gpu(found, kv.Cache(pipeline_parallel_size=size)) or 0 for size in (1, 2))
    assert two == pytest.approx((one - table) / 2 + table, rel=0.001)


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "INT4"),
        ({"quant_method": "awq", "bits": 8, "group_size": 64}, "INT8"),
        (
            {"quant_method": "compressed_tensors", "config_groups": {"a": {"weights": {"type": "int", "num_bits": 4}}}},
            "INT4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"type": "float", "num_bits": 8}}},
            },
            "FP8",
        ),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, "NVFP4"),
        ({"quant_method": "bitsandbytes"}, None),
        ({"quant_method": "gptq", "bits": 3}, None),
    ],
)
def test_precision(quantization: Config, name: str | None) -> None:
    found = weights.precision(shape({**models.LLAMA_8B, "quantization_config": quantization}))
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("config", "cache", "expected"),
    [
        (models.LLAMA_8B, {}, 128 * 1024),
        (models.LLAMA_70B, {}, 320 * 1024),
        (models.LLAMA2_7B, {}, 512 * 1024),  # without groups
        (models.SCOUT, {}, 192 * 1024),
        (models.DEEPSEEK_V3, {}, 70272),
        (models.DEEPSEEK_V3, {"tensor_parallel_size": 8}, 70272),  # every GPU has the whole
        (models.DEEPSEEK_V3, {"dtype": "fp8"}, 35136),
        (models.LLAMA_8B, {"tensor_parallel_size": 2}, 64 * 1024),
        (models.LLAMA_8B, {"tensor_parallel_size": 16}, 16 * 1024),  # heads are copied, not divided, below one
        (models.LLAMA_8B, {"dtype": "fp8"}, 64 * 1024),
        (models.LLAMA_8B, {"dtype": "int8_per_token_head"}, 32 * 2 * 8 * (128 + 4)),
        (models.LLAMA_8B, {"model_dtype": "float32"}, 256 * 1024),
        (models.LLAMA_70B, {"pipeline_parallel_size": 2}, 160 * 1024),
        (models.LLAMA_70B, {"dtype": "nvfp4"}, None),
        ({**models.LLAMA_8B, "torch_dtype": "int4"}, {}, None),
        ({**models.LLAMA_8B, "index_topk": 2048}, {}, None),  # a second cache beside it
        ({**models.LLAMA_8B, "layer_types": ["linear_attention", "full_attention"] * 16}, {}, None),
        (
            {
                **models.LLAMA_8B,
                "quantization_config": {"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "FP8"}},
            },
            {},
            64 * 1024,
        ),
    ],
)
def test_kv_bytes_per_token(config: Config, cache: dict[str, Any], expected: int | None) -> None:
    assert kv.kv_bytes_per_token(shape(config), kv.Cache(**cache)) == expected


@pytest.mark.parametrize(
    ("config", "cache", "tokens_asked", "blocks"),
    [
        (models.LLAMA_8B, {}, 8192, 512),
        (models.LLAMA_8B, {}, 8193, 513),
        (models.LLAMA_8B, {"block": 128}, 8193, 65),
        # 6 groups of 10 or 11 layers: 52 layers with a window of 1024 and 10 without
        (models.GEMMA3_27B, {"in_flight": 4096}, 131072, 131072 // 16 + 6 * ((1023 + 4096 + 15) // 16 + 1)),
        (models.GEMMA3_27B, {"in_flight": 4096, "hybrid": False}, 131072, 131072 // 16),
        (models.MISTRAL_WINDOW, {"in_flight": 2048}, 32768, (4095 + 2048 + 15) // 16 + 1),
        (models.MISTRAL_WINDOW, {"in_flight": 2048, "hybrid": False}, 32768, (4095 + 2048 + 15) // 16 + 1),
        (models.SCOUT, {}, 131072, 8192),  # vLLM keeps all of its chunks
        (models.GPT_OSS_20B, {"in_flight": 4096}, 131072, 8192 + (127 + 4096 + 15) // 16 + 1),
    ],
)
def test_blocks_of_a_request(config: Config, cache: dict[str, Any], tokens_asked: int, blocks: int) -> None:
    assert kv.request_blocks(shape(config), kv.Cache(**cache), tokens_asked) == blocks


@pytest.mark.parametrize(
    ("layers", "size", "expected"),
    [(80, 4, [20, 20, 20, 20]), (61, 4, [15, 15, 16, 15]), (7, 3, [2, 3, 2]), (5, 1, [5])],
)
def test_layers_of_the_stages(layers: int, size: int, expected: list[int]) -> None:
    found = kv.stages(layers, kv.Cache(pipeline_parallel_size=size))
    assert [len(stage) for stage in found] == expected
    assert [index for stage in found for index in stage] == list(range(layers))


def test_the_longest_request_is_the_longest() -> None:
    found, cache, memory = shape(models.GEMMA3_27B), kv.Cache(), 2 * GIB
    length = kv.longest(found, cache, memory, 131072)
    assert (kv.request_bytes(found, cache, length) or 0) <= memory < (kv.request_bytes(found, cache, length + 16) or 0)
    assert kv.longest(found, cache, 1000, 131072) == 0


@pytest.mark.parametrize(
    ("config", "most", "default"),
    [
        (models.LLAMA_8B, 131072, 131072),
        (
            {
                **models.QWEN3_8B,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
            40960,
        ),
        ({**models.LLAMA2_7B, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        (models.GEMMA3_27B, 131072, 131072),  # stretched already
        (models.DEEPSEEK_V3, 163840, 163840),
        ({**models.LLAMA_8B, "max_position_embeddings": None}, None, None),
    ],
)
def test_longest_context(config: Config, most: int | None, default: int | None) -> None:
    assert (shape(config).context, shape(config).default_context) == (most, default)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": "64"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": None},
        {"hidden_size": 1.5},
        {"text_config": [1]},
        {"rope_scaling": "yarn"},
        {"quantization_config": "fp8"},
        {"layer_types": 3},
    ],
)
def test_config_of_another_form_is_told_in_words(change: Config) -> None:
    with pytest.raises(CapacityError, match=r"config\.json cannot be understood .*: is it that of a language model\?"):
        shape({**models.LLAMA_8B, **change})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpu-memory-utilization": 1.7}, "gpu-memory-utilization is 1.7: give a share above 0, and 1 at most"),
        ({"gpu-memory-utilization": "most"}, "gpu-memory-utilization is 'most'"),
        ({"max-num-seqs": 0}, "max-num-seqs is 0: give a whole number above 0"),
        ({"pipeline-parallel-size": "two"}, "pipeline-parallel-size is 'two'"),
        ({"max-model-len": -2}, "max-model-len is -2: give a whole number above 0"),
        ({"data-parallel-size": "all"}, "data-parallel-size is 'all'"),
    ],
)
def test_flags_that_mean_nothing(settings: Config, words: str) -> None:
    with pytest.raises(CapacityError) as told:
        flags(settings)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("tier", "settings", "sequences", "batched"),
    [
        ("l4", {}, 256, 2048),
        ("a100-80gb", {}, 256, 2048),  # vLLM keeps its defaults small there
        ("h100-80gb", {}, 1024, 8192),
        ("b200-180gb", {}, 1024, 16384),
        ("h100-80gb", {"performance-mode": "throughput"}, 2048, 16384),
        ("h100-80gb", {"max-num-seqs": 64, "max-num-batched-tokens": "4k"}, 64, 4000),
    ],
)
def test_flags_have_the_defaults_of_the_gpu(tier: str, settings: Config, sequences: int, batched: int) -> None:
    gpu = gpu_tiers.TIERS[tier]
    found = flags(settings, 2, gpu.memory, gpu.generation == "ampere")
    assert (found.sequences, found.batched_tokens, found.gpus, found.batches) == (sequences, batched, 2, 2)


@pytest.mark.parametrize(
    ("given", "meant"), [(8192, 8192), ("8k", 8000), ("8K", 8192), ("many", None), (True, None), (None, None)]
)
def test_numbers_of_tokens(given: Any, meant: int | None) -> None:
    assert tokens(given) == meant


def judged(config: Config, tier: str, size: int, settings: Config, count: int = 8) -> tuple[str, str, list[str]]:
    gpu, model = gpu_tiers.TIERS[tier], Model(shape(config))
    asked = flags(settings, size, gpu.memory, gpu.generation == "ampere")
    found = fit(model, asked, gpu.memory)
    return found.verdict, found.reason, [change.words for change in changes(model, asked, Gpus(gpu.memory, count, gpu))]


@pytest.mark.parametrize(
    ("config", "tier", "size", "settings", "verdict", "smallest"),
    [
        (models.LLAMA_8B, "l4", 1, {"max-model-len": 8192}, "fits", ""),
        (
            models.LLAMA_8B,
            "l4",
            1,
            {"max-model-len": 32768},
            "tight",
            "set max-model-len to 24576 or less in vllm_flags",
        ),
        (models.LLAMA_8B, "l4", 1, {"max-model-len": 65536}, "does not fit", "set vllm_tensor_parallel_size to 2"),
        (models.LLAMA_8B, "t4", 1, {"max-model-len": 8192}, "does not fit", "set vllm_tensor_parallel_size to 2"),
        # the reference deployment, and what was planned for it at first
        (models.LLAMA_70B, "h100-80gb", 4, {"max-model-len": 32768}, "fits", ""),
        (
            models.LLAMA_70B,
            "h100-80gb",
            1,
            {"max-model-len": 32768},
            "does not fit",
            "set vllm_tensor_parallel_size to 4",
        ),
        (models.SCOUT, "h100-80gb", 2, {"max-model-len": 8192}, "does not fit", "set vllm_tensor_parallel_size to 4"),
        (models.SCOUT, "h100-80gb", 2, {"max-model-len": 8192, "quantization": "fp8"}, "fits", ""),
        (models.SCOUT, "h100-80gb", 4, {"max-model-len": 8192}, "fits", ""),
        (models.DEEPSEEK_V3, "h200-141gb", 8, {}, "fits", ""),
        (models.DEEPSEEK_V3, "h100-80gb", 8, {}, "does not fit", "take GPUs of the tier h200-141gb (llmops_gpu_type)"),
        (
            models.LLAMA_8B,
            "l4",
            1,
            {"kv-cache-memory-bytes": 2 * GIB, "max-model-len": 32768},
            "does not fit",
            "raise kv-cache-memory-bytes to 4297064448 in vllm_flags",
        ),
    ],
)
def test_what_fits_and_the_smallest_change(
    config: Config, tier: str, size: int, settings: Config, verdict: str, smallest: str
) -> None:
    found, reason, helping = judged(config, tier, size, settings)
    assert (found, helping[0] if smallest else "") == (verdict, smallest), (reason, helping)
    assert bool(reason) == (verdict != "fits")


@pytest.mark.parametrize("value", [-1, "-1", "auto", "Auto"])
def test_a_fitted_length_is_the_longest_that_fits(value: Any) -> None:
    """vLLM takes what fits, so only weights and a first block of cache are certain to be needed."""
    gpu, model = gpu_tiers.TIERS["l4"], Model(shape(models.LLAMA_8B))
    asked = flags({"max-model-len": value}, 1, gpu.memory)
    found = fit(model, asked, gpu.memory)
    assert (found.verdict, found.reason, found.fitted) == ("fits", "", True)
    assert found.length and 20000 < found.length < 131072
    assert fit(model, replace(asked, length=found.length), gpu.memory).verdict == "fits"
    assert fit(model, replace(asked, length=found.length + 16), gpu.memory).verdict == "tight"
    assert found.concurrency == pytest.approx(1, rel=0.01)
    roomy = gpu_tiers.TIERS["h200-141gb"]
    found = fit(model, flags({"max-model-len": value}, 1, roomy.memory), roomy.memory)
    assert (found.verdict, found.length) == ("fits", 131072)


@pytest.mark.parametrize(
    ("config", "tier", "settings", "verdict", "length", "words"),
    [
        (models.LLAMA_70B, "h100-80gb", {}, "does not fit", 0, "the weights take 131.4 GiB"),
        (models.LLAMA_8B, "l4", {"gpu-memory-utilization": 0.7}, "tight", 0, "before about"),
        (
            models.LLAMA_8B,
            "l4",
            {"kv-cache-memory-bytes": 4096},
            "does not fit",
            0,
            "a single token takes 4194304 bytes of cache, and it has 4096",
        ),
        (models.LLAMA_8B, "l4", {"kv-cache-memory-bytes": "1G"}, "fits", 8176, ""),
        ({**models.LLAMA_8B, "max_position_embeddings": None}, "l4", {}, "fits", None, ""),
        ({**models.LLAMA_8B, "model_type": "new"}, "l4", {}, "not known", None, "weights of new cannot be counted"),
    ],
)
def test_a_fitted_length_needs_one_token(
    config: Config, tier: str, settings: Config, verdict: str, length: int | None, words: str
) -> None:
    gpu = gpu_tiers.TIERS[tier]
    found = fit(Model(shape(config)), flags({"max-model-len": "auto", **settings}, 1, gpu.memory), gpu.memory)
    assert (found.verdict, found.length) == (verdict, length), found.reason
    assert words in found.reason and bool(words) == bool(found.reason)


def test_a_fitted_length_is_refused_where_weights_leave_no_block() -> None:
    model = Model(shape(models.LLAMA_8B))
    asked = Flags(utilization=1, length=FITTED)
    held, token = model.weights(asked) or 0, 2 * 16 * 128 * 1024  # with the block that stays empty
    assert fit(model, asked, held + token).verdict == "tight"
    refused = fit(model, asked, held + token - 1)
    assert refused.verdict == "does not fit" and "GiB of cache for a single token on each GPU" in refused.reason


UNCERTAIN: list[tuple[Config, str, int, Config, str]] = [
    # all experts are not on each rank: this runs
    (
        models.DEEPSEEK_V3,
        "h200-141gb",
        1,
        {"data-parallel-size": 8, "enable-expert-parallel": True},
        "data-parallel-size is 8",
    ),
    # nor are they without expert parallelism: vLLM then divides each expert among all ranks
    (models.DEEPSEEK_V3, "h200-141gb", 1, {"data-parallel-size": 8}, "data-parallel-size is 8"),
    (models.LLAMA_70B, "h100-80gb", 1, {"cpu-offload-gb": 80}, "cpu-offload-gb keeps weights in the host's memory"),
    (models.LLAMA_70B, "h100-80gb", 1, {"offload-group-size": 4}, "offload-group-size keeps weights"),
    (models.LLAMA_8B, "l4", 1, {"decode-context-parallel-size": 2}, "decode-context-parallel-size divides the cache"),
    (models.LLAMA_8B, "l4", 1, {"prefill-context-parallel-size": "2"}, "prefill-context-parallel-size divides"),
    (models.LLAMA_70B, "h100-80gb", 1, {"hf-overrides": {"num_hidden_layers": 2}}, "hf-overrides changes figures"),
    (models.LLAMA_70B, "h100-80gb", 4, {"speculative-config": {"model": "draft"}}, "speculative-config loads a second"),
    (models.LLAMA_70B, "h100-80gb", 1, {"quantization": "bitsandbytes"}, "what quantization bitsandbytes makes of"),
]


@pytest.mark.parametrize(("config", "tier", "size", "settings", "words"), UNCERTAIN)
def test_what_no_formula_follows_is_told_and_not_judged(
    config: Config, tier: str, size: int, settings: Config, words: str
) -> None:
    """The same by the shape, with the files at hand, and in the check."""
    gpu = gpu_tiers.TIERS[tier]
    tensors = [files.Tensor("model.layers.0.mlp.up_proj.weight", "BF16", 70 * GB, 140 * GB)]
    for model in (Model(shape(config)), Model(shape(config), tensors)):
        found = fit(model, flags(settings, size, gpu.memory), gpu.memory)
        assert found.verdict == "not known"
        assert found.reason.startswith(words) and found.reason.endswith(": what fits cannot be computed")
        assert (found.weights, found.request, found.pool, found.blocks, found.cache_tokens) == (None,) * 5
    with pytest.raises(CapacityError, match=f"llama: {words}"):
        problems(config, tier, settings=dict(settings), tensor_parallel_size=size)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (models.LLAMA_70B, {"data-parallel-size": 8}),  # a copy of the weights on each rank
        (models.DEEPSEEK_V3, {"data-parallel-size": 1, "enable-expert-parallel": True}),
        (
            models.LLAMA_70B,
            {"cpu-offload-gb": 0, "decode-context-parallel-size": 1, "hf-overrides": {}, "offload-group-size": "0"},
        ),
        ({**models.LLAMA_70B, **FP8}, {"quantization": "fp8", "tensor-parallel-size": 1, "max-model-len": 131072}),
    ],
)
def test_what_changes_nothing_leaves_no_doubt(config: Config, settings: Config) -> None:
    found = problems(config, "h100-80gb", settings=dict(settings))
    gpus = settings.get("data-parallel-size", 1)
    assert len(found) == 1 and f"does not fit {gpus} x h100-80gb" in found[0]


@pytest.mark.parametrize(
    ("tier", "settings", "count", "words"),
    [
        (
            "h100-80gb",
            {"max-model-len": 98304, "gpu-memory-utilization": 0.9},
            1,
            "set kv-cache-dtype to fp8 in vllm_flags",
        ),
        (
            "a100-80gb",
            {"max-model-len": 98304, "gpu-memory-utilization": 0.4},
            1,
            "raise gpu-memory-utilization to 0.95 in vllm_flags",
        ),
    ],
)
def test_8_bit_cache_only_where_the_gpu_computes_in_it(tier: str, settings: Config, count: int, words: str) -> None:
    config = {**models.LLAMA_8B, "num_key_value_heads": 32}
    _verdict, _reason, helping = judged(config, tier, 1, settings, count)
    assert words in helping
    assert ("set kv-cache-dtype to fp8 in vllm_flags" in helping) == (tier == "h100-80gb")


def test_8_bit_weights_only_where_the_gpu_computes_in_them() -> None:
    for tier in ("h100-80gb", "a100-80gb"):
        _verdict, _reason, helping = judged(models.LLAMA_70B, tier, 1, {"max-model-len": 4096}, 1)
        assert not [text for text in helping if "vllm_tensor_parallel_size" in text]
        # on one GPU of 80 GB even FP8 leaves no room
        assert [text for text in helping if "4-bit weights" in text], helping
    _verdict, _reason, helping = judged(models.LLAMA_70B, "h100-80gb", 2, {"max-model-len": 32768}, 2)
    assert [text for text in helping if "set quantization to fp8" in text]
    _verdict, _reason, helping = judged(models.LLAMA_70B, "a100-80gb", 2, {"max-model-len": 131072}, 2)
    assert not [text for text in helping if "fp8" in text]


def test_a_change_that_is_named_fits() -> None:
    gpu, model = gpu_tiers.TIERS["h100-80gb"], Model(shape(models.LLAMA_70B))
    asked = Flags(tensor_parallel_size=2, length=65536, sequences=256, batched_tokens=8192)
    named = {change.variable: change.value for change in changes(model, asked, Gpus(gpu.memory, 8, gpu))}
    changed = {
        "vllm_tensor_parallel_size": lambda value: replace(asked, tensor_parallel_size=int(value)),
        "vllm_flags.quantization": lambda value: replace(asked, quantization=value),
        "vllm_flags.max-model-len": lambda value: replace(asked, length=int(value)),
    }
    assert set(changed) <= {*named, "vllm_flags.max-model-len"}
    assert fit(model, asked, gpu.memory).verdict != "fits"
    for variable, value in named.items():
        if variable in changed:
            assert fit(model, changed[variable](value), gpu.memory).verdict == "fits", variable


def test_sizes_divide_all_that_is_divided() -> None:
    assert sizes(shape(models.LLAMA_70B)) == [1, 2, 4, 8, 16]
    assert sizes(shape(models.SCOUT)) == [1, 2, 4, 8]  # 40 heads
    assert sizes(shape(models.QWEN25_05B)) == [1, 2]  # 14 heads
    assert sizes(shape({**models.LLAMA_8B, "num_key_value_heads": 6, "num_attention_heads": 48})) == [1, 2]
    assert sizes(shape({**models.LLAMA_8B, "intermediate_size": 14340})) == [1, 2, 4]


def test_no_size_cuts_what_shares_a_scale() -> None:
    wide = {**models.LLAMA_8B, "intermediate_size": 13824}  # 8 x 1728, which 128 does not divide
    blocks = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert sizes(shape(wide)) == [1, 2, 4, 8, 16]
    for quantization in (INT4, blocks):
        assert sizes(shape({**wide, **quantization})) == [1, 2, 4]
    assert sizes(shape({**wide, **FP8})) == [1, 2, 4, 8, 16]


def test_modules_of_an_encoder_are_no_layers_of_the_model() -> None:
    """As llm-compressor writes it: module by module."""
    scheme = {"weights": {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True}}
    encoder = [f"vision_tower.vision_model.encoder.layers.{n}.self_attn.q_proj" for n in range(27)]
    own = [f"language_model.model.layers.{n}.self_attn.q_proj" for n in range(shape(models.GEMMA3_27B).layers)]

    def held(*ignored: str) -> int:
        config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": scheme}, "ignore": [*ignored]}
        size = weights.per_gpu(shape({**models.GEMMA3_27B, "quantization_config": config}), kv.Cache())
        assert size
        return size

    assert held("lm_head", *encoder) == held("lm_head") == held("lm_head", *encoder, own[0])
    assert held("lm_head", *own) == held("re:.*self_attn.*") > 1.2 * held("lm_head")


def test_each_data_parallel_rank_has_gpus_of_its_own() -> None:
    gpu, model = gpu_tiers.TIERS["h100-80gb"], Model(shape(models.LLAMA_8B))
    one, four = (flags({"max-model-len": 8192, "data-parallel-size": ranks}, 1, gpu.memory) for ranks in (1, 4))
    assert (one.gpus, four.gpus) == (1, 4)
    found = fit(model, four, gpu.memory)
    assert found == fit(model, one, gpu.memory)
    at_once = [useful_concurrency(model, asked, found, 2000) or 0 for asked in (one, four)]
    assert at_once[1] == pytest.approx(4 * at_once[0])


def test_requests_at_once_are_bound_by_the_pool_and_by_max_num_seqs() -> None:
    gpu, model = gpu_tiers.TIERS["h100-80gb"], Model(shape(models.LLAMA_8B))
    for sequences, expected in ((1024, 300), (64, 64)):
        asked = flags({"max-model-len": 32768, "max-num-seqs": sequences}, 1, gpu.memory)
        found = fit(model, asked, gpu.memory)
        assert useful_concurrency(model, asked, found, 1536) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        ("h100-80gb", "h100-80gb"),
        (" H200 ", "h200-141gb"),
        ("b200", "b200-180gb"),
        ("rtx_6000_ada", "rtx-6000-ada"),
        ("l4", "l4"),
        ("h100-pcie", "h100-pcie-80gb"),
        ("h200-nvl", "h200-nvl-141gb"),
        ("a10", "a10"),
        ("a100", None),  # of 40 or of 80 GB
        ("a100-pcie", None),
        ("h100", None),
        ("mi300x", None),
        ("", None),
    ],
)
def test_names_of_tiers(name: str, tier: str | None) -> None:
    found = gpu_tiers.named(name)
    assert (found.name if found else None) == tier


@pytest.mark.parametrize(
    ("device", "tier", "gigabytes", "tera", "nvlink"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb", 3350, 989, True),
        ("NVIDIA H100 PCIe", "h100-pcie-80gb", 2000, 756, False),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb", 2039, 312, True),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb", 1935, 312, False),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb", 1555, 312, False),
        ("NVIDIA A10", "a10", 600, 125, False),
        ("NVIDIA A10G", "a10g", 600, 70, False),
        ("NVIDIA H200", "h200-141gb", 4800, 989, True),
        ("NVIDIA H200 NVL", "h200-nvl-141gb", 4800, 835, True),
    ],
)
def test_cards_have_their_own_figures(device: str, tier: str, gigabytes: int, tera: int, nvlink: bool) -> None:
    found = gpu_tiers.of_device(device)
    assert found and found.name == tier
    assert (found.bandwidth, found.flops, found.nvlink) == (gigabytes * 10**9, tera * 10**12, nvlink)


def test_tiers_are_sound_data() -> None:
    devices = [name for tier in gpu_tiers.TIERS.values() for name in tier.names]
    assert len(devices) == len(set(devices))
    assert set(PRICES) == set(gpu_tiers.TIERS)
    assert [tier.memory for tier in gpu_tiers.TIERS.values()] == sorted(t.memory for t in gpu_tiers.TIERS.values())
    for tier in gpu_tiers.TIERS.values():
        assert tier.generation in gpu_tiers.COMPUTES
        assert 0.1 < PRICES[tier.name].usd < 20 and PRICES[tier.name].month[:3] == "202"
        assert all(gpu_tiers.of_device(name) is tier for name in tier.names)
    assert not gpu_tiers.TIERS["a100-80gb"].computes("fp8")
    assert gpu_tiers.of_device("NVIDIA GeForce GTX 1080") is None


def test_every_tier_is_named_where_people_look_for_them() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    module = (root / "plugins" / "modules" / "vllm_capacity_info.py").read_text()
    listed = module.partition("Known are ")[2].partition(".\n")[0]
    assert re.split(r",\s+|\s+and\s+", listed) == list(gpu_tiers.TIERS)
    guide = (root / "docs" / "sizing.md").read_text()
    assert [name for name in gpu_tiers.TIERS if f"`{name}`" not in guide] == []


REPLICA: dict[str, Any] = {
    "host": "gpu1",
    "name": "r0",
    "model_name": "llama",
    "tensor_parallel_size": 1,
    "gpus": [0],
    "settings": {},
    "environment": {},
}


def problems(config: Config, tier: str, host_gpus: int = 8, **change: Any) -> list[str]:
    return [str(problem) for problem in check_capacity.problems({**REPLICA, **change}, config, tier, host_gpus)]


@pytest.mark.parametrize(
    ("config", "tier", "change", "words"),
    [
        (
            models.LLAMA_70B,
            "h100-80gb",
            {},
            "is 1 for replica r0, and llama does not fit 1 x h100-80gb: the weights take 131.4 GiB",
        ),
        (models.LLAMA_70B, "h100-80gb", {}, "set vllm_tensor_parallel_size to 4, or "),
        (
            models.LLAMA_8B,
            "l4",
            {"settings": {"max-model-len": 65536}},
            "vllm_flags.max-model-len is 65536 for replica r0",
        ),
        (models.LLAMA_8B, "t4", {"settings": {"dtype": "bfloat16"}}, "vllm_flags.dtype is bfloat16"),
        (
            models.QWEN25_05B,
            "t4",
            {"settings": {"kv-cache-dtype": "fp8"}},
            "vllm_flags.kv-cache-dtype is fp8 for replica r0, and no attention of llama runs with it on GPUs of the",
        ),
        (
            models.GPT_OSS_20B,
            "a100-80gb",
            {"settings": {"kv-cache-dtype": "fp8"}},
            "tier a100-80gb: set kv-cache-dtype to auto in vllm_flags",
        ),
        (
            models.LLAMA_8B,
            "",
            {"settings": {"kv-cache-memory-bytes": "1G"}},
            "8192 tokens of llama, less than one request of 131072: set 17181966336 or more",
        ),
        (
            models.QWEN25_05B,
            "",
            {"tensor_parallel_size": 4},
            "the 14 attention heads of llama cannot be divided by it: set one of 1, 2",
        ),
        (models.LLAMA_8B, "", {"settings": {"max-model-len": 200000}}, "set 131072 or less"),
        (
            models.LLAMA_70B,
            "h100-80gb",
            {"settings": {"max-model-len": "auto"}},
            "vllm_tensor_parallel_size is 1 for replica r0, and llama does not fit",
        ),
        (
            models.LLAMA_8B,
            "",
            {"settings": {"max-model-len": -1, "kv-cache-memory-bytes": 4096}},
            "set 4194304 or more",
        ),
    ],
)
def test_what_the_check_refuses(config: Config, tier: str, change: dict[str, Any], words: str) -> None:
    found = problems(config, tier, **change)
    assert words in "\n".join(found)
    assert len([text for text in found if "dtype" not in text]) <= 1


@pytest.mark.parametrize(
    ("config", "tier", "change"),
    [
        (models.LLAMA_70B, "h100", {}),  # no tier: only what is certain without one
        (models.LLAMA_70B, "", {}),
        (models.LLAMA_70B, "h100-80gb", {"gpus": []}),  # the CPU's memory is another
        (models.LLAMA_8B, "l4", {"settings": {"max-model-len": 32768}}),  # tight: it may start
        ({**models.LLAMA_70B, "model_type": "new"}, "h100-80gb", {"settings": {"max-model-len": 8192}}),
        (models.LLAMA_8B, "", {"settings": {"decode-context-parallel-size": 2, "kv-cache-memory-bytes": "1G"}}),
        (models.LLAMA_8B, "l4", {"settings": {"max-model-len": "auto"}}),  # all of its context would not fit
        (models.LLAMA_8B, "l4", {"settings": {"max-model-len": -1}}),
        (models.QWEN25_05B, "a100-80gb", {"settings": {"kv-cache-dtype": "fp8"}}),
        (models.GPT_OSS_20B, "h100-80gb", {"settings": {"kv-cache-dtype": "fp8"}}),
        (models.LLAMA_8B, "", {"settings": {"max-model-len": "auto", "kv-cache-memory-bytes": "1G"}}),
    ],
)
def test_what_is_not_certain_is_not_refused(config: Config, tier: str, change: dict[str, Any]) -> None:
    assert problems(config, tier, **change) == []
