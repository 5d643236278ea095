# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make a model fit: one change at a time, the smallest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .._gpu.tiers import TIERS, Tier
from . import kv
from .fit import FITS, Model, fit, least_length, sizes
from .flags import Flags
from .weights import in_four_bits

_ROUND = 1024  # a length that people write
_SHORTEST = 2048  # below it few applications live
_MOST_UTILIZATION = 0.95  # the rest is CUDA's own


@dataclass(frozen=True)
class Change:
    """One variable, the value with which it fits, and what to do in words."""

    variable: str
    value: str
    words: str


@dataclass(frozen=True)
class Gpus:
    """The GPUs at hand: bytes of each, how many of them a replica could have, and their kind where it is known."""

    memory: int
    count: int
    tier: Tier | None = None


def changes(model: Model, flags: Flags, gpus: Gpus) -> Iterator[Change]:
    """Yield what would make it fit, smallest first: what clients notice least and what costs nothing comes before.

    Each is a change by itself, judged with the margin for computing.
    """
    length = least_length(model.shape, flags) or 0
    yield from _more_cache(model, flags, gpus.memory, length)
    shorter = _shorter(model, flags, gpus.memory, length)
    if shorter * 2 >= length and shorter:
        yield _length(shorter)
    yield from _eight_bits(model, flags, gpus)
    roomier = replace(flags, utilization=_MOST_UTILIZATION)
    if not flags.cache_memory and flags.utilization < _MOST_UTILIZATION and _fits(model, roomier, gpus.memory):
        text = f"raise gpu-memory-utilization to {_MOST_UTILIZATION} in vllm_flags"
        yield Change("vllm_flags.gpu-memory-utilization", str(_MOST_UTILIZATION), text)
    size = _larger(model, flags, gpus)
    if size:
        yield Change("vllm_tensor_parallel_size", str(size), f"set vllm_tensor_parallel_size to {size}")
    if 0 < shorter * 2 < length:
        yield _length(shorter)
    yield from _fewer_bits(model, flags, gpus)
    tier = _roomier(model, flags, gpus)
    if tier:
        text = f"take GPUs of the tier {tier.name} (llmops_gpu_type)"
        yield Change("llmops_gpu_type", tier.name, text)


def _fits(model: Model, flags: Flags, memory: int) -> bool:
    return fit(model, flags, memory).verdict == FITS


def _shorter(model: Model, flags: Flags, memory: int, length: int) -> int:
    """Return the longest round length that fits, 0 for none worth having."""
    pool = fit(model, flags, memory).pool
    found = kv.longest(model.shape, flags.cache, pool, length - 1) if pool and length > 1 else 0
    if found >= _ROUND:
        found -= found % _ROUND
    good = found >= min(_SHORTEST, length // 2) and _fits(model, replace(flags, length=found), memory)
    return found if found and good else 0


def _more_cache(model: Model, flags: Flags, memory: int, length: int) -> Iterator[Change]:
    needed = kv.request_bytes(model.shape, flags.cache, length) or 0
    if 0 < flags.cache_memory < needed and _fits(model, replace(flags, cache_memory=needed), memory):
        text = f"raise kv-cache-memory-bytes to {needed} in vllm_flags"
        yield Change("vllm_flags.kv-cache-memory-bytes", str(needed), text)


def _length(tokens: int) -> Change:
    return Change("vllm_flags.max-model-len", str(tokens), f"set max-model-len to {tokens} or less in vllm_flags")


def _eight_bits(model: Model, flags: Flags, gpus: Gpus) -> Iterator[Change]:
    plain = flags.cache_dtype == "auto" and not model.shape.cache_quantization
    if plain and _has_fp8(gpus) and _fits(model, replace(flags, cache_dtype="fp8"), gpus.memory):
        yield Change("vllm_flags.kv-cache-dtype", "fp8", "set kv-cache-dtype to fp8 in vllm_flags")


def _has_fp8(gpus: Gpus) -> bool:
    return gpus.tier is None or gpus.tier.computes("fp8")


def _larger(model: Model, flags: Flags, gpus: Gpus) -> int:
    """Return the next tensor parallel size with which it fits, 0 where the host has not the GPUs for it."""
    larger = [size for size in sizes(model.shape) if size > flags.tensor_parallel_size]
    asked = (replace(flags, tensor_parallel_size=size) for size in larger)
    fitting = (one for one in asked if one.gpus <= gpus.count and _fits(model, one, gpus.memory))
    return next((one.tensor_parallel_size for one in fitting), 0)


def _fewer_bits(model: Model, flags: Flags, gpus: Gpus) -> Iterator[Change]:
    """Eight bits in which the GPU computes, else four, which all can hold."""
    shape = model.shape
    if shape.quantization or flags.quantization:
        return
    if _has_fp8(gpus) and _fits(model, replace(flags, quantization="fp8"), gpus.memory):
        text = "set quantization to fp8 in vllm_flags, or serve a revision with FP8 weights"
        yield Change("vllm_flags.quantization", "fp8", text)
        return
    if _fits(Model(in_four_bits(shape)), flags, gpus.memory):
        text = "serve a revision with 4-bit weights (AWQ, GPTQ): llmops_model_source"
        yield Change("llmops_model_source", "4-bit weights", text)


def _roomier(model: Model, flags: Flags, gpus: Gpus) -> Tier | None:
    """Return the smallest tier on which it fits with the same flags."""
    return next(
        (tier for tier in TIERS.values() if tier.memory > gpus.memory and _fits(model, flags, tier.memory)), None
    )
