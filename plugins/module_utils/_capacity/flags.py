# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flags of vLLM that memory depends on, with what vLLM 0.32 takes where one is not set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._vllm import flags as _flags
from .kv import GPU_BLOCK, Cache
from .shape import CapacityError

GIB = 1024**3
UTILIZATION = 0.92  # vLLM's default since 0.21


@dataclass(frozen=True)
class Flags:
    """What is asked of a replica. ``length`` 0 is what the model takes; ``cache_memory`` 0 leaves it to utilization."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    utilization: float = UTILIZATION
    length: int = 0
    sequences: int = 256
    batched_tokens: int = 2048
    batches: int = 2
    cache_dtype: str = "auto"
    cache_memory: int = 0
    dtype: str = "auto"
    quantization: str = ""
    block: int = GPU_BLOCK
    hybrid: bool = True
    graphs: bool = True

    @property
    def gpus(self) -> int:
        """How many GPUs the replica takes."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def cache(self) -> Cache:
        """How the cache is kept."""
        return Cache(
            self.tensor_parallel_size,
            self.pipeline_parallel_size,
            self.cache_dtype,
            self.dtype,
            self.block,
            self.batches * self.batched_tokens,
            self.hybrid,
        )


def flags(settings: Mapping[str, Any], tensor_parallel_size: int = 0, memory: int = 0, ampere: bool = False) -> Flags:
    """Return what settings mean on GPUs of so many bytes (0: not known); raise CapacityError for what means nothing.

    Defaults that follow from the GPU: ``get_batch_defaults`` of vLLM 0.32, for the API server. Asynchronous scheduling,
    on by itself with CUDA, has one batch more under way than the pipeline has stages.
    """
    roomy, large = memory >= 70 * GIB and not ampere, memory >= 160 * GIB
    double = 2 if settings.get("performance-mode") == "throughput" else 1
    stages = _number(settings, "pipeline-parallel-size", 1)
    return Flags(
        tensor_parallel_size=tensor_parallel_size or _number(settings, "tensor-parallel-size", 1),
        pipeline_parallel_size=stages,
        utilization=_share(settings.get("gpu-memory-utilization", UTILIZATION)),
        length=tokens(settings.get("max-model-len")) or 0,
        sequences=_number(settings, "max-num-seqs", double * (1024 if roomy or large else 256)),
        batched_tokens=_number(
            settings, "max-num-batched-tokens", double * (16384 if large else 8192 if roomy else 2048)
        ),
        batches=stages + (0 if settings.get("async-scheduling") is False else 1),
        cache_dtype=str(settings.get("kv-cache-dtype", "auto")),
        cache_memory=tokens(settings.get("kv-cache-memory-bytes")) or 0,
        dtype=str(settings.get("dtype", "auto")),
        quantization=str(settings.get("quantization") or ""),
        block=_number(settings, "block-size", GPU_BLOCK),
        hybrid=not settings.get("disable-hybrid-kv-cache-manager", False),
        graphs=not settings.get("enforce-eager", False),
    )


def tokens(value: Any) -> int | None:
    """Return the number that a flag of vLLM means (``8192``, ``8k`` = 8000, ``8K`` = 8192), or None."""
    try:
        return None if isinstance(value, bool) else _flags.size(str(value).strip())
    except ValueError:
        return None


def _number(settings: Mapping[str, Any], name: str, default: int) -> int:
    value = settings.get(name, default)
    found = tokens(value)
    if found is None or found < 1:
        raise CapacityError(f"{name} is {value!r}: give a whole number above 0")
    return found


def _share(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found <= 1:
        raise CapacityError(f"gpu-memory-utilization is {value!r}: give a share above 0, and 1 at most")
    return found
