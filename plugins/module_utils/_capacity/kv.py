# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The KV cache of a model: bytes for a token, blocks for a request, tokens in a pool.

Source: vLLM 0.32, ``v1/kv_cache_interface.py`` and ``v1/core/kv_cache_utils.py``. Exact, to the block, for the shapes
that are ``known``: ``benchmarks/capacity`` compares with vLLM's own functions and with servers that were started.
"""

from __future__ import annotations

from dataclasses import dataclass

from .shape import Shape

GPU_BLOCK = 16  # tokens; vLLM's CPU build has 128
_PADDED_BELOW = 1.5  # kinds of layers whose numbers differ by less are padded to the larger
# A number for each token and head scales what these hold.
_SCALED = {"int8_per_token_head": 1, "fp8_per_token_head": 1}
_SCALE = 4


@dataclass(frozen=True)
class Cache:
    """How a replica keeps its cache.

    ``in_flight``: tokens that are scheduled and not settled yet, which layers with a window hold beyond it:
    ``max-num-batched-tokens`` for each batch under way. ``hybrid``: whether these layers forget what left the window.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    dtype: str = "auto"  # of the cache
    model_dtype: str = "auto"
    block: int = GPU_BLOCK
    in_flight: int = 16384
    hybrid: bool = True


@dataclass(frozen=True)
class Group:
    """Layers that share a table of blocks; ``window`` 0 keeps all tokens."""

    layers: tuple[int, ...]
    window: int


def token_bytes(shape: Shape, cache: Cache) -> int | None:
    """Return what one layer keeps for a token on each GPU, None where no formula holds.

    Heads: ``2 x max(1, kv_heads / TP) x head_dim x bytes``. Latent attention: ``(kv_lora_rank + qk_rope_head_dim) x
    bytes``, on every GPU the whole.
    """
    width = _width(shape, cache)
    if width is None or not shape.known:
        return None
    if shape.latent:
        return shape.latent * width if cache.dtype not in _SCALED else None
    heads = max(1, shape.kv_heads // cache.tensor_parallel_size)
    return 2 * heads * (shape.head_dim * width + (_SCALE if cache.dtype in _SCALED else 0))


def kv_bytes_per_token(shape: Shape, cache: Cache) -> int | None:
    """Return what all layers of the fullest stage keep for a token on each GPU, as if none had a window."""
    each = token_bytes(shape, cache)
    return None if each is None else each * max(len(stage) for stage in stages(shape.layers, cache))


def stages(layers: int, cache: Cache) -> list[range]:
    """Return the layers of each stage of the pipeline (``get_pp_indices``): the last one gets none of the rest."""
    size = cache.pipeline_parallel_size
    counts = [layers // size] * size
    for place in range(2, layers % size + 2):
        counts[-place] += 1
    starts = [sum(counts[:place]) for place in range(size)]
    return [range(start, start + count) for start, count in zip(starts, counts)]


def groups(shape: Shape, cache: Cache) -> list[Group]:
    """Return the groups that vLLM makes of the layers (``_get_kv_cache_groups_uniform_page_size``).

    Without the hybrid manager, and for chunks, which have it switched off, layers with a window keep all tokens as soon
    as one layer does.
    """
    by_window: dict[int, list[int]] = {}
    for index, window in enumerate(shape.windows):
        by_window.setdefault(window, []).append(index)
    if len(by_window) == 1:
        return [Group(tuple(range(shape.layers)), shape.windows[0])]
    if not cache.hybrid or shape.chunked:
        return [Group(tuple(range(shape.layers)), 0)]
    numbers = [len(found) for found in by_window.values()]
    size = max(numbers) if max(numbers) < min(numbers) * _PADDED_BELOW else min(numbers)
    made = []
    for window, found in by_window.items():
        count = -(-len(found) // size)
        made += [Group(tuple(found[place::count]), window) for place in range(count)]
    return made


def block_bytes(shape: Shape, cache: Cache) -> int | None:
    """Return the bytes of one block of the pool on the GPUs of the fullest stage.

    Groups share the pool, so a block is as large as the largest group's.
    """
    each = token_bytes(shape, cache)
    if each is None:
        return None
    found = groups(shape, cache)
    layers = max(
        max(sum(index in stage for index in group.layers) for group in found) for stage in stages(shape.layers, cache)
    )
    return layers * each * cache.block


def request_blocks(shape: Shape, cache: Cache, tokens: int) -> int:
    """Return the blocks that a request of so many tokens holds at most, summed over the groups."""
    return sum(_group_blocks(group, shape, cache, tokens) for group in groups(shape, cache))


def request_bytes(shape: Shape, cache: Cache, tokens: int) -> int | None:
    """Return the pool that vLLM asks for at its start for one request of so many tokens, with its one empty block."""
    block = block_bytes(shape, cache)
    return None if block is None else (request_blocks(shape, cache, tokens) + 1) * block


def pool(shape: Shape, cache: Cache, memory: int) -> int | None:
    """Return how many blocks a pool of so many bytes on each GPU has."""
    block = block_bytes(shape, cache)
    return None if block is None else max(0, memory) // block


def concurrency(shape: Shape, cache: Cache, blocks: int, tokens: int) -> float:
    """Return how many requests of so many tokens the pool holds at once, as vLLM logs it for ``max-model-len``."""
    return blocks / request_blocks(shape, cache, tokens)


def longest(shape: Shape, cache: Cache, memory: int, at_most: int) -> int:
    """Return the longest request that a pool of so many bytes holds, ``at_most`` or less; 0 for none."""
    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        needed = request_bytes(shape, cache, middle)
        if needed is not None and needed <= memory:
            low = middle
        else:
            high = middle - 1
    return low


def _group_blocks(group: Group, shape: Shape, cache: Cache, tokens: int) -> int:
    if not group.window:
        return -(-tokens // cache.block)
    if shape.chunked:
        return -(-min(group.window + cache.in_flight, tokens) // cache.block)
    # one more, because the window need not begin where a block begins
    return -(-min(group.window - 1 + cache.in_flight, tokens) // cache.block) + 1


def _width(shape: Shape, cache: Cache) -> int | None:
    """Return the bytes of one number of the cache."""
    if cache.dtype in _SCALED:
        return _SCALED[cache.dtype]
    if cache.dtype in ("fp8", "fp8_e4m3", "fp8_e5m2") or (cache.dtype == "auto" and shape.cache_quantization):
        return 1
    if cache.dtype in ("auto", "bfloat16", "float16"):
        return shape.plain_width(cache.model_dtype if cache.dtype == "auto" else cache.dtype)
    return None
