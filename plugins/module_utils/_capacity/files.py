# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The weights of a model as its files hold them, read from the headers of the safetensors files alone.

Source: the safetensors format, and how the model files of vLLM 0.32 spread tensors of these names. Sums are exact; what
a GPU of several holds is within 1 % for language models (an encoder of images counts as spread, which some are not).
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._model import safetensors
from .kv import Cache, stages
from .parts import ENCODERS
from .shape import Shape
from .weights import ONLINE

_PLAIN = {"F64", "F32", "F16", "BF16"}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_TABLE = re.compile(r"(?:^|\.)(?:embed_tokens|wte|lm_head)\.")
_HEAD = re.compile(r"(?:^|\.)lm_head\.")
_KEYS = re.compile(r"\.[kv]_proj\.")
_ENCODER = re.compile(rf"(?:^|\.)(?:{ENCODERS})\.")
# Each GPU holds these whole.
_WHOLE = re.compile(r"norm|\.router\.|\.gate\.|shared_expert_gate|kv_a_proj|q_a_proj|o_proj\.bias|down_proj\.bias")
# Numbers beside quantised weights keep their type; buffers are not loaded.
_BESIDE = re.compile(r"scale|zeros|zero_point|e_score_correction_bias|g_idx")
_BUFFER = re.compile(r"inv_freq$")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its type as safetensors writes it, how many numbers, how many bytes."""

    name: str
    dtype: str
    numbers: int
    bytes: int


def tensors(directory: pathlib.Path) -> list[Tensor]:
    """Return the tensors of the files that vLLM loads: those of the index, else all beside it, but no second copy."""
    index = directory / "model.safetensors.index.json"
    paths = (
        [directory / name for name in sorted(safetensors.shards(index))]
        if index.exists()
        else [path for path in sorted(directory.glob("*.safetensors")) if not path.name.startswith("consolidated")]
    )
    found = []
    for path in paths:
        if not path.is_file():
            raise safetensors.ModelError(f"{path}: not there, though the index names it: complete the source")
        for name, told in safetensors.header(path).items():
            if name != "__metadata__":
                start, end = told["data_offsets"]
                found.append(Tensor(name, str(told["dtype"]), math.prod(told["shape"]), end - start))
    return found


def loaded(found: Iterable[Tensor], layers: int) -> list[Tensor]:
    """Return the tensors that the model has; further layers predict tokens ahead and are loaded only on demand."""
    return [tensor for tensor in found if not _BUFFER.search(tensor.name) and _layer(tensor, layers) < layers]


def per_gpu(found: Iterable[Tensor], shape: Shape, cache: Cache, quantization: str = "") -> int:
    """Return the bytes of these weights on the fullest GPU."""
    mine = loaded(found, shape.layers)
    has_head = any(_HEAD.search(tensor.name) for tensor in mine)
    held = [0.0] * cache.pipeline_parallel_size
    place_of = {index: place for place, stage in enumerate(stages(shape.layers, cache)) for index in stage}
    last = len(held) - 1
    for tensor in mine:
        size = _bytes(tensor, shape, cache, quantization) / _split(tensor, shape, cache.tensor_parallel_size)
        layer = -1 if _ENCODER.search(tensor.name) else _layer(tensor, shape.layers)
        if layer >= 0:
            held[place_of[layer]] += size
        elif not _TABLE.search(tensor.name):
            held[last if ".norm." in tensor.name else 0] += size
        elif _HEAD.search(tensor.name):
            held[last] += size
        else:
            held[0] += size
            held[last] += 0 if has_head or last == 0 else size
    return int(max(held))


def _layer(tensor: Tensor, layers: int) -> int:
    """Return the number of its layer, -1 for none; layers of an encoder have numbers of their own."""
    told = None if _ENCODER.search(tensor.name) else _LAYER.search(tensor.name)
    return int(told.group(1)) if told else -1


def _bytes(tensor: Tensor, shape: Shape, cache: Cache, quantization: str) -> float:
    if tensor.dtype not in _PLAIN or _BESIDE.search(tensor.name):
        return tensor.bytes
    spread = not (_TABLE.search(tensor.name) or _WHOLE.search(tensor.name) or _ENCODER.search(tensor.name))
    if quantization in ONLINE and not shape.quantization and spread and not tensor.name.endswith("bias"):
        return tensor.numbers
    width = shape.plain_width(cache.model_dtype)
    return tensor.numbers * width if width else tensor.bytes


def _split(tensor: Tensor, shape: Shape, size: int) -> int:
    if _WHOLE.search(tensor.name) and not _ENCODER.search(tensor.name):
        return 1
    return min(size, shape.kv_heads) if _KEYS.search(tensor.name) and not shape.latent else size


def dtypes(found: Iterable[Tensor]) -> Mapping[str, int]:
    """Return how many bytes there are of each type."""
    sums: dict[str, int] = {}
    for tensor in found:
        sums[tensor.dtype] = sums.get(tensor.dtype, 0) + tensor.bytes
    return sums
