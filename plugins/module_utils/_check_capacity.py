# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a replica can hold its model, as far as the model's ``config.json`` tells without a host.

Only what is certain to fail is a problem; how much fits beyond that is measured on the host. Formulas: vLLM 0.32,
``ModelConfig`` and ``get_kv_cache_spec``; the rule for KV bytes gave vLLM's own figures for two shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import _flags
from ._errors import LlmopsError
from ._problem import Problem

# Ways to stretch the context that multiply what config.json says; the others state the stretched length itself.
_STRETCHING = ("linear", "dynamic", "yarn")
# Signs of models in which layers have no attention, or attend to a part: no simple formula holds.
_NOT_ALL_LAYERS_ATTEND_TO_ALL = (
    "sliding_window",
    "layer_types",
    "layers_block_type",
    "hybrid_override_pattern",
    "attn_layer_period",
    "attn_layer_indices",
    "block_configs",
    "attention_chunk_size",
)
_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


class CapacityError(LlmopsError):
    """The model's config cannot be understood."""


def problems(replica: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot work for a replica with its ``settings`` (see ``_vllm_settings``) and the model's config.

    Raises CapacityError where the config is not of the shape that models have.
    """
    if "hf-overrides" in replica["settings"]:
        return  # any figure of the config may be another one then
    try:
        yield from list(_problems(replica, config))
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CapacityError(f"the config.json of {replica['model_name']} cannot be understood ({error!r})") from error


def _problems(replica: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Problem]:
    host, name, settings = replica["host"], replica["name"], replica["settings"]
    model = config.get("text_config") or config  # models that also see or hear keep the language part there
    size = int(replica["tensor_parallel_size"])
    heads = model.get("num_attention_heads")
    if heads and heads % size:
        yield Problem(
            host, "vllm_tensor_parallel_size", str(size),
            f"is {size} for replica {name}, and the {heads} attention heads of {replica['model_name']} cannot be "
            f"divided by it: set one of {', '.join(str(n) for n in (1, 2, 4, 8, 16) if heads % n == 0)}",
        )  # fmt: skip
    longest = context_tokens(model)
    length = tokens(settings.get("max-model-len"))
    stretched = str(replica["environment"].get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0")) not in ("0", "", "false")
    if longest and length and length > longest and not stretched:
        yield Problem(
            host, "vllm_flags.max-model-len", str(settings["max-model-len"]),
            f"is {settings['max-model-len']} for replica {name}, and {replica['model_name']} takes {longest} tokens: "
            f"set {longest} or less",
        )  # fmt: skip
    cache = tokens(settings.get("kv-cache-memory-bytes"))
    divided = any(settings.get(flag, 1) != 1 for flag in ("pipeline-parallel-size", "decode-context-parallel-size"))
    cache_dtype = str(settings.get("kv-cache-dtype", "auto"))
    per_token = None if divided else kv_bytes_per_token(model, size, cache_dtype)
    needed = length or longest
    if cache and per_token and needed and cache // per_token < needed:
        yield Problem(
            host, "vllm_flags.kv-cache-memory-bytes", str(settings["kv-cache-memory-bytes"]),
            f"is {settings['kv-cache-memory-bytes']} for replica {name}, which holds {cache // per_token} tokens of "
            f"{replica['model_name']}, less than one request of {needed}: set {needed * per_token} or more, or a "
            "smaller max-model-len",
        )  # fmt: skip


def context_tokens(model: Mapping[str, Any]) -> int | None:
    """Return the longest context in tokens, or None where the config does not tell it."""
    longest = model.get("max_position_embeddings")
    if not isinstance(longest, int):
        return None
    rope = model.get("rope_parameters") or model.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in _STRETCHING:
        return longest
    return int(rope.get("original_max_position_embeddings", longest) * float(rope.get("factor", 1)))


def kv_bytes_per_token(model: Mapping[str, Any], tensor_parallel_size: int, cache_dtype: str = "auto") -> int | None:
    """Return the bytes of KV cache that a token takes on each GPU, or None where no simple formula holds.

    Attention with grouped heads: ``2 x layers x max(1, kv_heads / TP) x head_dim x bytes``; latent attention:
    ``layers x (kv_lora_rank + qk_rope_head_dim) x bytes``, on every GPU the whole. Sliding windows hold less.
    """
    layers, heads = model.get("num_hidden_layers"), model.get("num_attention_heads")
    if not layers or not heads or any(model.get(key) for key in _NOT_ALL_LAYERS_ATTEND_TO_ALL):
        return None
    width = 1 if cache_dtype.startswith("fp8") else _BYTES.get(str(model.get("dtype") or model.get("torch_dtype")))
    if width is None or cache_dtype not in ("auto", "fp8", "fp8_e4m3", "fp8_e5m2"):
        return None
    if model.get("kv_lora_rank"):
        return int(layers) * (int(model["kv_lora_rank"]) + int(model.get("qk_rope_head_dim", 0))) * width
    kv_heads = int(model.get("num_key_value_heads") or heads)
    head_dim = int(model.get("head_dim") or model["hidden_size"] // heads)
    return 2 * int(layers) * max(1, kv_heads // tensor_parallel_size) * head_dim * width


def tokens(value: Any) -> int | None:
    """Return the number that a flag of vLLM means (``8192``, ``8k`` = 8000, ``8K`` = 8192), or None."""
    try:
        return None if isinstance(value, bool) else _flags.size(str(value).strip())
    except ValueError:
        return None
