# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of a model, read from its ``config.json``: what its memory follows from.

Source of every rule: vLLM 0.32, ``model_arch_config_convertor.py`` and the model files. What a rule does not cover is
``None`` or ``known`` false, never a guess: a figure that is shown can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import LlmopsError

Config = Mapping[str, Any]

# Ways to stretch the context that multiply what config.json says; the others state the stretched length itself.
_STRETCHING = ("linear", "dynamic")
# Signs of layers without attention, of attention with a further cache, or of a second stack of layers.
_UNKNOWN_ATTENTION = (
    "layers_block_type",
    "hybrid_override_pattern",
    "attn_layer_period",
    "attn_layer_indices",
    "block_configs",
    "linear_attn_config",
    "full_attention_interval",
    "index_topk",
    "compress_ratios",
    "num_kv_shared_layers",
    "cross_attention_layers",
    "is_encoder_decoder",
)
WIDTHS = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
# What transformers fills in where the published config.json leaves it out.
_GEMMA3 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}


class CapacityError(LlmopsError):
    """The model's config, or what is asked about it, cannot be understood."""


@dataclass(frozen=True)
class Shape:
    """What the KV cache, the weights and the choice of flags depend on.

    ``windows`` has a number for each layer: how many tokens it attends to, 0 for all. ``chunked`` says that the windows
    are chunks (Llama 4), for which vLLM keeps all tokens unless told otherwise. ``latent`` is the width of what latent
    attention caches for a token, 0 where keys and values are cached by head. ``known`` says that the formulas of the KV
    cache hold for it.
    """

    family: str  # model_type of the language part
    architecture: str
    layers: int
    hidden: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    latent: int
    windows: tuple[int, ...]
    chunked: bool
    context: int | None  # the most that a request may have
    default_context: int | None  # what is served without max-model-len
    dtype: str
    quantization: str  # quant_method of the checkpoint, empty for plain weights
    cache_quantization: bool  # whether the checkpoint asks for an 8-bit KV cache
    experts: int
    experts_per_token: int
    known: bool
    text: Config  # the language part itself
    quantization_config: Config
    encoder: bool  # whether it also has an encoder of images or sound

    def plain_width(self, dtype: str = "auto") -> int | None:
        """Return the bytes of an unquantised number with ``--dtype``, None for a type that vLLM does not serve.

        By itself vLLM serves 32-bit checkpoints in 16 bits (``_resolve_auto_dtype``).
        """
        if dtype != "auto":
            return WIDTHS.get(dtype)
        return 2 if not self.dtype or self.dtype in WIDTHS else None


def shape(config: Config) -> Shape:
    """Return the shape of a model; raise CapacityError where ``config.json`` is not of the form that models have."""
    try:
        return _shape(config)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CapacityError(f"config.json cannot be understood ({error!r}): is it that of a language model?") from error


def _shape(config: Config) -> Shape:
    text: Config = config.get("text_config") or config
    family = str(text.get("model_type") or config.get("model_type") or "")
    if family == "gemma3_text":
        text = {**_GEMMA3, **text}
    layers, heads = _above_0(text, "num_hidden_layers"), _above_0(text, "num_attention_heads")
    hidden = _above_0(text, "hidden_size")
    quantization: Config = config.get("quantization_config") or text.get("quantization_config") or {}
    latent = int(text["kv_lora_rank"]) + int(text.get("qk_rope_head_dim") or 0) if text.get("kv_lora_rank") else 0
    windows, chunked, known = _windows(text, family, layers)
    experts = _first(text, "num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
    return Shape(
        family=family,
        architecture=str((config.get("architectures") or [""])[0]),
        layers=layers,
        hidden=hidden,
        vocabulary=int(text.get("vocab_size") or 0),
        heads=heads,
        kv_heads=_first(text, "num_kv_heads", "num_key_value_heads", "n_head_kv") or heads,
        head_dim=int(text.get("head_dim") or 0) or hidden // heads,
        latent=latent,
        windows=windows,
        chunked=chunked,
        context=context_tokens(text, family),
        default_context=default_context_tokens(text, family),
        dtype=str(_named(config, "dtype", "torch_dtype") or _named(text, "dtype", "torch_dtype") or ""),
        quantization=str(quantization.get("quant_method") or "").lower().replace("_", "-"),
        cache_quantization=_cache_quantization(quantization),
        experts=experts,
        experts_per_token=_first(text, "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk"),
        known=known,
        text=text,
        quantization_config=quantization,
        encoder=text is not config and any(key in config for key in ("vision_config", "audio_config")),
    )


def _windows(text: Config, family: str, layers: int) -> tuple[tuple[int, ...], bool, bool]:
    """Return how far each layer looks back, whether these are chunks, and whether all layers are understood."""
    known = not any(text.get(key) for key in _UNKNOWN_ATTENTION)
    window, chunk = int(text.get("sliding_window") or 0), int(text.get("attention_chunk_size") or 0)
    if family == "llama4_text":  # layers without rotary embedding see everything, whatever layer_types says
        step = int(text.get("no_rope_layer_interval") or 4)
        plain = text.get("no_rope_layers") or [int((index + 1) % step != 0) for index in range(layers)]
        return tuple(chunk if rope else 0 for rope in plain[:layers]), chunk > 0, known and len(plain) >= layers
    if family in ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe") and not text.get("use_sliding_window"):
        return (0,) * layers, False, known
    types = text.get("layer_types")
    if types:
        spans = {"full_attention": 0, "sliding_attention": window, "chunked_attention": chunk}
        return (
            tuple(spans.get(kind, 0) for kind in types[:layers]),
            "chunked_attention" in types,
            known and len(types) >= layers and set(types) <= set(spans),
        )
    if family in ("gemma2", "gpt_oss"):
        return tuple(window if index % 2 == 0 else 0 for index in range(layers)), False, known
    if text.get("sliding_window_pattern"):
        step = int(text["sliding_window_pattern"])
        return tuple(window if (index + 1) % step else 0 for index in range(layers)), False, known
    return (window or chunk,) * layers, chunk > 0, known


def _cache_quantization(quantization: Config) -> bool:
    inner = quantization.get("quantization")  # where ModelOpt writes it
    parts = [quantization, *([inner] if isinstance(inner, Mapping) else [])]
    return any(part.get("kv_cache_scheme") or part.get("kv_cache_quant_algo") == "FP8" for part in parts)


def default_context_tokens(text: Config, family: str = "") -> int | None:
    """Return the context that vLLM serves without ``max-model-len``, or None where the config does not tell it.

    Source: ``_get_and_verify_max_len`` of vLLM 0.32. Exact, unless the tokenizer states a lower limit.
    """
    longest = text.get("max_position_embeddings")
    if not isinstance(longest, int):
        return None
    rope = _rope(text)
    stretched = rope.get("rope_type", rope.get("type")) in _STRETCHING and not family.startswith("gemma3")
    return int(longest * float(rope.get("factor") or 1)) if stretched else longest


def context_tokens(text: Config, family: str = "") -> int | None:
    """Return the longest context that may be asked for, or None where the config does not tell it.

    vLLM 0.32 takes what the config states for ``yarn``, earlier versions the original length times the factor: the
    larger of the two, because only what no version takes is certain to fail.
    """
    longest, rope = default_context_tokens(text, family), _rope(text)
    if longest is None or rope.get("rope_type", rope.get("type")) != "yarn":
        return longest
    original = int(rope.get("original_max_position_embeddings") or longest)
    return max(longest, int(original * float(rope.get("factor") or 1)))


def _rope(text: Config) -> Config:
    found: Config = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return found


def _above_0(text: Config, name: str) -> int:
    value = text[name]
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}")
    return value


def _first(text: Config, *names: str) -> int:
    return next((int(text[name]) for name in names if text.get(name)), 0)


def _named(part: Config, *names: str) -> Any:
    return next((part[name] for name in names if part.get(name)), None)
