# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a model with these flags fits these GPUs.

What is *certain* to fail: the weights and the KV cache of one request of ``max-model-len`` take more than the memory
times ``gpu-memory-utilization``; vLLM refuses to start then (``request_memory``, ``_check_enough_kv_cache_memory``). Of
a fitted ``max-model-len`` one token must fit. Nothing is certain with what ``uncertain`` names.
What it needs beside them while it computes is an estimate, a *margin*: a model that fits only without it may start, or
may not, and is called tight. The real number is in vLLM's log (``Available KV cache memory``) and in
``vllm:cache_config_info``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import files, kv, parts, weights
from .flags import GIB, Flags
from .shape import Shape

FITS, TIGHT, FAILS, UNKNOWN = "fits", "tight", "does not fit", "not known"


@dataclass(frozen=True)
class Model:
    """A model: its shape, its tensors where the files are at hand, and of which variant they are (empty: as is)."""

    shape: Shape
    tensors: Sequence[files.Tensor] = ()
    variant: str = ""

    def weights(self, flags: Flags) -> int | None:
        """Return the bytes of weights on the fullest GPU: by the files where they are there, else by the shape."""
        if self.tensors:
            return files.per_gpu(self.tensors, self.shape, flags.cache, flags.quantization)
        return weights.per_gpu(self.shape, flags.cache, flags.quantization)


@dataclass(frozen=True)
class Fit:
    """What a replica takes of each GPU, in bytes, and what is left for requests.

    ``weights`` and ``request`` (the cache of one request of ``length`` tokens) are None where no formula holds;
    ``margin`` is the estimate of everything else; ``blocks`` of the pool are what is left after it. ``fitted``: whether
    ``length`` is what this pool holds, 0 for not one token.
    """

    verdict: str
    reason: str
    length: int | None
    fitted: bool
    budget: int
    weights: int | None
    margin: int
    request: int | None
    pool: int | None
    blocks: int | None
    cache_tokens: int | None
    concurrency: float | None


def fit(model: Model, flags: Flags, memory: int) -> Fit:
    """Judge a replica on GPUs of so many bytes each."""
    shape, cache, least = model.shape, flags.cache, least_length(model.shape, flags)
    budget = memory if flags.cache_memory else int(memory * flags.utilization)
    rest = margin(shape, flags)
    doubt = uncertain(shape, flags)
    if doubt:
        length = None if flags.fitted else least
        return Fit(UNKNOWN, doubt, length, flags.fitted, budget, None, rest, None, None, None, None, None)
    held, needed = model.weights(flags), kv.request_bytes(shape, cache, least) if least else None
    pool = flags.cache_memory or (None if held is None else budget - held - rest)
    length = _fitted_length(shape, cache, pool) if flags.fitted else least
    request = kv.request_bytes(shape, cache, length) if length else needed
    blocks = None if pool is None else kv.pool(shape, cache, pool)
    requests = kv.concurrency(shape, cache, blocks, length) if blocks is not None and length else None
    reason = _certain(held, needed, flags, budget, least)
    if reason:
        verdict = FAILS
    elif held is None or needed is None or pool is None:
        verdict, reason = UNKNOWN, _missing(shape, held, least)
    else:
        used = held + rest + (flags.cache_memory or needed)
        verdict = FITS if used <= budget else TIGHT
        if verdict == TIGHT:
            reason = (
                f"{_gib(used - rest)} of {_gib(budget)} GiB are taken before about {_gib(rest)} GiB for computing: it "
                "may not start"
            )
    return Fit(
        verdict, reason, length, flags.fitted, budget, held, rest, request, pool, blocks,
        int(requests * length) if requests is not None and length else None, requests,
    )  # fmt: skip


def uncertain(shape: Shape, flags: Flags) -> str:
    """Return what makes every judgement of memory uncertain, in words; empty for nothing.

    Of the layers with experts vLLM makes one group of all data parallel ranks, with expert parallelism and without it
    (``FusedMoEParallelConfig.make``).
    """
    why = flags.beyond
    if not why and shape.experts and flags.data_parallel_size > 1:
        why = f"data-parallel-size is {flags.data_parallel_size}, and the experts are spread over all of its GPUs"
    if not why and not shape.quantization and weights.precision(shape, flags.quantization) is None:
        why = f"what quantization {flags.quantization} makes of the weights is not known"
    return f"{why}: what fits cannot be computed" if why else ""


def least_length(shape: Shape, flags: Flags) -> int | None:
    """Return the tokens of the request that must fit for vLLM to start, None where nothing tells them."""
    return 1 if flags.fitted else flags.length or shape.default_context


def _fitted_length(shape: Shape, cache: kv.Cache, pool: int | None) -> int | None:
    if pool is None or shape.default_context is None or kv.block_bytes(shape, cache) is None:
        return None
    return kv.longest(shape, cache, pool, shape.default_context)


def _missing(shape: Shape, held: int | None, least: int | None) -> str:
    """Return which formula is missing, in words."""
    if held is None:
        kind = f" ({shape.quantization})" if shape.quantization else ""
        return f"the weights of {shape.family or 'this family'}{kind} cannot be counted"
    return "no formula holds for its cache" if least else "config.json does not tell its context: set max-model-len"


def _certain(held: int | None, request: int | None, flags: Flags, budget: int, length: int | None) -> str:
    """Return why vLLM is certain to refuse, in words; empty where it is not."""
    one = "a single token" if flags.fitted else f"one request of {length} tokens"
    have = f"{_gib(budget)} GiB" + ("" if flags.cache_memory else f" ({flags.utilization:g} of the GPU's memory)")
    if flags.cache_memory:
        if request and request > flags.cache_memory:
            return f"{one} takes {request} bytes of cache, and it has {flags.cache_memory}"
        if held is not None and held + flags.cache_memory > budget:
            return (
                f"{_gib(held)} GiB of weights and {_gib(flags.cache_memory)} GiB of cache on each GPU, which has {have}"
            )
        return ""
    if held is not None and held >= budget:
        return f"the weights take {_gib(held)} GiB of each GPU, which has {have}"
    if request is not None and (held or 0) + request > budget:
        told = "" if held is None else f"{_gib(held)} GiB of weights and "
        return f"{told}{_gib(request)} GiB of cache for {one} on each GPU, which has {have}"
    return ""


def useful_concurrency(model: Model, flags: Flags, found: Fit, tokens: int) -> float | None:
    """Return how many requests of this length (prompt and answer) are served at once, by all data parallel ranks.

    ``max-num-seqs`` bounds it for each of them.
    """
    if found.blocks is None or tokens < 1:
        return None
    each = min(float(flags.sequences), kv.concurrency(model.shape, flags.cache, found.blocks, tokens))
    return each * flags.data_parallel_size


def sizes(shape: Shape, at_most: int = 16) -> list[int]:
    """Return the tensor parallel sizes that work: all that is divided divides, and heads of keys divide or are copied.

    Source: ``verify_with_parallel_config`` and the asserts of the linear layers of vLLM 0.32. Exact for the families
    whose parameters are counted; for others only heads are known. No size cuts what shares a scale: vLLM refuses to
    load such weights.
    """
    group = weights.group(shape)

    def divides(size: int) -> bool:
        even = all(value % size == 0 for value in parts.divided(shape).values())
        even = even and (size == 1 or all(value % (size * group) == 0 for value in parts.inputs(shape)))
        return even and (shape.latent > 0 or shape.kv_heads % size == 0 or size % shape.kv_heads == 0)

    return [size for size in (1, 2, 4, 8, 16) if size <= at_most and divides(size)]


def margin(shape: Shape, flags: Flags) -> int:
    """Estimate what a GPU needs beside weights and cache: up to a factor of two, mostly within 1.5 GiB.

    CUDA's context and libraries 1 GiB, communication 0.5 GiB, CUDA graphs 1 GiB; activations of a step: ``tokens x (6 x
    hidden + 4 x widest layer / TP) x 2``; sampling: ``sequences x vocabulary x 12``; copies that latent attention keeps
    of its projections. Source: what vLLM's profile run executes, with factors of the order that published logs show.
    """
    text, size = shape.text, flags.tensor_parallel_size
    fixed = GIB + (GIB // 2 if flags.rank_gpus > 1 else 0) + (GIB if flags.graphs else 0)
    active = max(1, shape.experts_per_token) * int(text.get("moe_intermediate_size") or 0) if shape.experts else 0
    widest = max(int(text.get("intermediate_size") or 0), active)
    step = flags.batched_tokens * (6 * shape.hidden + 4 * widest // size) * 2
    sampling = flags.sequences * shape.vocabulary * 12
    copies = 0
    if shape.latent:
        projected = int(text.get("qk_nope_head_dim") or 0) + int(text.get("v_head_dim") or 0)
        copies = shape.layers * shape.heads * projected * int(text["kv_lora_rank"]) * 2 // flags.rank_gpus
    return fixed + step + sampling + copies


def _gib(size: int) -> str:
    return f"{math.floor(size / GIB * 10 + 0.5) / 10:.1f}"
