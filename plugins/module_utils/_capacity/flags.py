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
FITTED = -1  # as vLLM itself writes it
# What puts weights or cache where no formula here follows them, the value with which it does nothing, and what it does.
_BEYOND = (
    ("hf-overrides", 0, "changes figures of config.json"),
    ("speculative-config", 0, "loads a second model, or layers beside the model's own, with a cache of theirs"),
    ("cpu-offload-gb", 0, "keeps weights in the host's memory"),
    ("offload-group-size", 0, "keeps weights in the host's memory"),
    ("decode-context-parallel-size", 1, "divides the cache among GPUs"),
    ("prefill-context-parallel-size", 1, "divides experts and prompts among GPUs"),
)


@dataclass(frozen=True)
class Flags:
    """What is asked of a replica.

    ``length`` 0 is what the model takes, ``FITTED`` the longest that fits; ``cache_memory`` 0 leaves it to utilization;
    ``beyond`` says what no formula follows, empty for nothing.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
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
    beyond: str = ""

    @property
    def fitted(self) -> bool:
        """Whether vLLM takes the longest request that fits (``_auto_fit_max_model_len``)."""
        return self.length == FITTED

    @property
    def gpus(self) -> int:
        """How many GPUs the replica takes."""
        return self.rank_gpus * self.data_parallel_size

    @property
    def rank_gpus(self) -> int:
        """Among how many GPUs one copy of the model is divided; each data parallel rank has its own."""
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
        data_parallel_size=_number(settings, "data-parallel-size", 1),
        utilization=_share(settings.get("gpu-memory-utilization", UTILIZATION)),
        length=_length(settings),
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
        beyond=beyond(settings),
    )


def beyond(settings: Mapping[str, Any]) -> str:
    """Return which of the settings no formula here follows, in words; empty for none."""
    found = (f"{name} {does}" for name, nothing, does in _BEYOND if _does(settings.get(name), nothing))
    return next(found, "")


def _does(value: Any, nothing: int) -> bool:
    try:
        return float(value) > nothing
    except (TypeError, ValueError):
        return bool(value)


def _length(settings: Mapping[str, Any]) -> int:
    value = settings.get("max-model-len")
    if str(value).strip().lower() in ("auto", str(FITTED)):
        return FITTED
    return 0 if value is None else _number(settings, "max-model-len", 0)


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
