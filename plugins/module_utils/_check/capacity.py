# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a replica can hold its model, as far as the model's ``config.json`` and the name of the GPUs tell.

Only what is certain to fail is a problem (``_capacity.fit`` says what is certain, for the host, too); how much fits
beyond that is measured on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from .._capacity import kv, parts
from .._capacity.change import Gpus, changes
from .._capacity.fit import FAILS, Fit, Model, fit, least_length, sizes, uncertain
from .._capacity.flags import Flags, beyond, flags, tokens
from .._capacity.shape import CapacityError, shape
from .._gpu import tiers as gpu_tiers
from .problem import Problem

_NAMED_CHANGES = 2  # of those that would help; the module vllm_capacity_info tells them all


def problems(
    replica: Mapping[str, Any], config: Mapping[str, Any], gpu_type: str = "", host_gpus: int = 0
) -> Iterator[Problem]:
    """Yield what cannot work for a replica with its ``settings`` (see ``_vllm.settings``) and the model's config.

    ``gpu_type`` is what ``llmops_gpu_type`` says: where it names no tier, nothing that follows from memory is judged.
    Raises CapacityError, after what it found, where the config is not of the shape that models have, and where nothing
    is certain about memory.
    """
    try:
        yield from _problems(replica, config, gpu_tiers.named(gpu_type), host_gpus)
    except CapacityError as error:
        raise CapacityError(f"{replica['model_name']}: {error}") from error


def _problems(
    replica: Mapping[str, Any], config: Mapping[str, Any], tier: gpu_tiers.Tier | None, host_gpus: int
) -> Iterator[Problem]:
    host, name, settings = replica["host"], replica["name"], replica["settings"]
    if settings.get("hf-overrides"):  # any figure of the config may be another one
        raise CapacityError(beyond(settings))
    model, size = Model(shape(config)), int(replica["tensor_parallel_size"])
    heads = model.shape.heads
    works = heads % size == 0
    if not works:
        yield Problem(
            host, "vllm_tensor_parallel_size", str(size),
            f"is {size} for replica {name}, and the {heads} attention heads of {replica['model_name']} cannot be "
            f"divided by it: set one of {', '.join(str(n) for n in sizes(model.shape))}",
        )  # fmt: skip
    longest = model.shape.context
    length = tokens(settings.get("max-model-len"))
    stretched = str(replica["environment"].get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0")) not in ("0", "", "false")
    if longest and length and length > longest and not stretched:
        yield Problem(
            host, "vllm_flags.max-model-len", str(settings["max-model-len"]),
            f"is {settings['max-model-len']} for replica {name}, and {replica['model_name']} takes {longest} tokens: "
            f"set {longest} or less",
        )  # fmt: skip
        works = False
    wanted = flags(settings, size, tier.memory if tier else 0, tier is not None and tier.generation == "ampere")
    if not replica["gpus"]:  # a share of the host's memory, in other blocks
        tier = None
    if wanted.dtype == "bfloat16" and tier and not tier.computes("bfloat16"):
        text = f"is bfloat16 for replica {name}, in which GPUs of the tier {tier.name} do not compute: set float16"
        yield Problem(host, "vllm_flags.dtype", "bfloat16", text)
    if tier:
        yield from _cache_dtype(replica, model, wanted, tier)
    doubt = uncertain(model.shape, wanted)
    if doubt and tier and works:
        raise CapacityError(doubt)
    of_cache = [] if doubt else list(_cache_memory(replica, model, wanted))
    yield from of_cache
    if tier and works and not of_cache:
        yield from _memory(replica, model, wanted, Gpus(tier.memory, max(host_gpus, wanted.gpus), tier))


def _cache_dtype(replica: Mapping[str, Any], model: Model, wanted: Flags, tier: gpu_tiers.Tier) -> Iterator[Problem]:
    """An 8-bit cache has a kernel.

    Where the GPU does not compute in it, FlashInfer unpacks it: from Ampere on, and not beside sinks
    (``get_attn_backend_cls`` and the back ends' ``supports_sink`` of vLLM 0.32).
    """
    if not wanted.cache_dtype.startswith("fp8") or tier.computes("fp8"):
        return
    if tier.computes("bfloat16") and not parts.sinks(model.shape):
        return
    yield Problem(
        replica["host"], "vllm_flags.kv-cache-dtype", wanted.cache_dtype,
        f"is {wanted.cache_dtype} for replica {replica['name']}, and no attention of {replica['model_name']} runs with "
        f"it on GPUs of the tier {tier.name}: set kv-cache-dtype to auto in vllm_flags",
    )  # fmt: skip


def _cache_memory(replica: Mapping[str, Any], model: Model, wanted: Flags) -> Iterator[Problem]:
    """The cache that was asked for holds one request, whatever the GPU."""
    length = least_length(model.shape, wanted)
    each = kv.kv_bytes_per_token(model.shape, wanted.cache)
    needed = kv.request_bytes(model.shape, wanted.cache, length) if length else None
    if wanted.cache_memory and each and needed and needed > wanted.cache_memory:
        given = replica["settings"]["kv-cache-memory-bytes"]
        shorter = "" if wanted.fitted else ", or a smaller max-model-len"
        yield Problem(
            replica["host"], "vllm_flags.kv-cache-memory-bytes", str(given),
            f"is {given} for replica {replica['name']}, which holds {wanted.cache_memory // each} tokens of "
            f"{replica['model_name']}, less than one request of {length}: set {needed} or more{shorter}",
        )  # fmt: skip


def _memory(replica: Mapping[str, Any], model: Model, wanted: Flags, gpus: Gpus) -> Iterator[Problem]:
    found = fit(model, wanted, gpus.memory)
    if found.verdict != FAILS or gpus.tier is None:
        return
    helping = [change.words for change in islice(changes(model, wanted, gpus), _NAMED_CHANGES)]
    variable, value = _blamed(found, wanted)
    yield Problem(
        replica["host"], variable, value,
        f"is {value} for replica {replica['name']}, and {replica['model_name']} does not fit {wanted.gpus} x "
        f"{gpus.tier.name}: {found.reason}: {', or '.join(helping) or 'serve a smaller model'}",
    )  # fmt: skip


def _blamed(found: Fit, wanted: Flags) -> tuple[str, str]:
    """Return the variable that a person thinks of first: the length where weights fit, else the number of GPUs."""
    if found.weights is not None and found.weights < found.budget and wanted.length > 0:
        return "vllm_flags.max-model-len", str(wanted.length)
    return "vllm_tensor_parallel_size", str(wanted.tensor_parallel_size)
