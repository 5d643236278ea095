# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many bytes the weights of a model take on each GPU, computed from its shape.

Source: the parts of ``_capacity.parts``, and the formats as vLLM 0.32 loads them. Error: none in 16 bits; below 1 %
with FP8 and INT4, to the small side (scales, modules that the config leaves out by other words); up to 8 % with MXFP4,
whose kernels pad. ``_capacity.files`` reads the files instead, and is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import parts
from .kv import Cache, stages
from .shape import Shape

# The flags of vLLM that quantise plain weights while they are loaded.
ONLINE = ("fp8", "fp8_per_tensor", "fp8_per_block", "int8_per_channel_weight_only")
# What the config calls the parts that were left as they are.
_LEFT_OUT = {"attention": ("self_attn", "attention"), "shared": ("shared_expert",)}
_ENCODER, _OF_LAYER = re.compile(parts.ENCODERS), re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Precision:
    """How quantised weights are kept: ``bits`` for each with their scales, and the parts that are left out."""

    name: str
    bits: float
    left_out: tuple[str, ...] = ()

    def width(self, part: parts.Part, plain: int) -> float:
        """Return the bytes for a parameter of a part."""
        return self.bits / 8 if self.bits and part.kind and part.kind not in self.left_out else plain


PLAIN = Precision("16 bits", 0)
FP8 = Precision("FP8", 8)
INT4 = Precision("INT4", 4 + 16 / 128)  # groups of 128 with a 16-bit scale


def in_four_bits(shape: Shape) -> Shape:
    """Return a plain model as the usual checkpoint of AWQ, GPTQ and W4A16: groups of 128 with a 16-bit scale."""
    return replace(shape, quantization="gptq", quantization_config={"bits": 4, "group_size": 128, "sym": True})


def precision(shape: Shape, quantization: str = "") -> Precision | None:
    """Return how the linear layers are kept; None for a format that is not known.

    ``quantization`` is vLLM's flag: it changes plain weights alone, elsewhere it only repeats what the checkpoint is.
    """
    if not shape.quantization:
        return FP8 if quantization in ONLINE else PLAIN if not quantization else None
    config = shape.quantization_config
    left_out = _left_out(shape)
    method = shape.quantization
    if method == "fp8":
        return Precision("FP8", 8, left_out)
    if method == "mxfp4":
        return Precision("MXFP4", 4 + 8 / 32, left_out)
    if method in ("gptq", "awq"):
        return _integers(
            config.get("bits"), config.get("group_size"), bool(config.get("sym", method == "gptq")), left_out
        )
    if method == "compressed-tensors":
        groups: Mapping[str, Any] = config.get("config_groups") or {}
        scheme = next((group.get("weights") or {} for group in groups.values()), {})
        if scheme.get("type") == "float" and scheme.get("num_bits") == 8:
            return Precision("FP8", 8, left_out)
        if scheme.get("type") == "float" and scheme.get("num_bits") == 4:
            return Precision("NVFP4", 4 + 8 / 16, left_out)
        return _integers(
            scheme.get("num_bits"), scheme.get("group_size"), bool(scheme.get("symmetric", True)), left_out
        )
    inner = config.get("quantization")
    algorithm = str(config.get("quant_algo") or (inner.get("quant_algo") if isinstance(inner, Mapping) else "")).upper()
    if method.startswith("modelopt") and algorithm in ("FP8", "NVFP4"):
        return Precision(algorithm, 8 if algorithm == "FP8" else 4 + 8 / 16, left_out)
    return None


def group(shape: Shape) -> int:
    """Return how many inputs of a dense layer share a scale, 1 where that divides nothing.

    Source: ``create_weights`` of AWQ and GPTQ and ``validate_fp8_block_shape`` of vLLM 0.32. Experts are padded.
    """
    if shape.quantization == "fp8":
        return int((shape.quantization_config.get("weight_block_size") or [1])[-1])
    return max(1, int(shape.quantization_config.get("group_size") or 1)) if shape.quantization in ("gptq", "awq") else 1


def per_gpu(shape: Shape, cache: Cache, quantization: str = "") -> int | None:
    """Return the bytes of weights on the fullest GPU, None where they cannot be counted."""
    how, plain = precision(shape, quantization), shape.plain_width(cache.model_dtype)
    if how is None or plain is None or not parts.counted(shape):
        return None
    size = cache.tensor_parallel_size
    by_layer = [
        sum(part.per_gpu(size) * how.width(part, plain) for part in parts.layer(shape, index))
        for index in range(shape.layers)
    ]
    return max(
        int(sum(by_layer[index] for index in stage) + _ends(shape, place, cache, plain))
        for place, stage in enumerate(stages(shape.layers, cache))
    )


def _ends(shape: Shape, place: int, cache: Cache, plain: int) -> float:
    """Return the bytes of the tables and the last norm that a stage holds; tied tables are there once a stage."""
    first, last = place == 0, place == cache.pipeline_parallel_size - 1
    tables = first + last
    if tables == 2 and parts.tied(shape):
        tables = 1
    table = parts.embedding(shape).per_gpu(cache.tensor_parallel_size)
    return (tables * table + last * parts.final_norm(shape).parameters) * plain


def _integers(bits: Any, group: Any, symmetric: bool, left_out: tuple[str, ...]) -> Precision | None:
    """Return the precision of integers with a 16-bit scale for each group, and a zero point where it is not zero."""
    if bits not in (4, 8):
        return None
    size = int(group or 0)
    more = (16 + (0 if symmetric else bits)) / size if size > 0 else 0
    return Precision(f"INT{bits}", bits + more, left_out)


def _left_out(shape: Shape) -> tuple[str, ...]:
    """Return the parts that the config leaves out in every layer, by a pattern or layer by layer; encoders are none."""
    named = [name for name in map(str, _names(shape.quantization_config)) if not _ENCODER.search(name)]
    found = {kind: [name for name in named if any(word in name for word in words)] for kind, words in _LEFT_OUT.items()}
    return tuple(kind for kind, names in found.items() if _in_every_layer(names, shape.layers))


def _in_every_layer(names: Sequence[str], layers: int) -> bool:
    numbers = [_OF_LAYER.search(name) for name in names]
    return not all(numbers) or len({number.group(1) for number in numbers if number}) >= layers


def _names(config: Mapping[str, Any]) -> Iterator[Any]:
    for key in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules"):
        yield from config.get(key) or []
