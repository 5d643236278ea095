# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What fits which GPUs and what a load costs there, as plain data and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import _fleet
from .._gpu import tiers as gpu_tiers
from .._gpu.prices import PRICES
from .._text_table import aligned
from .._vllm.profiles import PROFILES
from .._vllm.settings import renamed
from . import kv
from .change import Gpus, changes
from .fit import FITS, UNKNOWN, Model, fit, sizes, useful_concurrency
from .flags import GIB, Flags, flags
from .load import Load, sizing
from .shape import CapacityError


def gpus(kind: str, memory: int, count: int) -> Gpus:
    """Return the GPUs that a tier or a number of bytes names; raise CapacityError where neither does."""
    tier = gpu_tiers.named(kind)
    if kind and tier is None:
        raise CapacityError(f"gpu_types: {kind!r} is no tier: give one of {', '.join(gpu_tiers.TIERS)}")
    if not (tier or memory):
        raise CapacityError("gpu_types and memory_bytes are empty: give the tier of the GPUs, or the bytes of one")
    return Gpus(memory or (tier.memory if tier else 0), count, tier)


def settings(profile: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of a profile with those that were given over them; no profile has none."""
    over = dict(renamed(name, value) for name, value in given.items())
    under = {flag.name: flag.value for flag in PROFILES[profile].flags} if profile else {}
    return {**under, **over}


def by_tier(option: str, given: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers by tier; raise CapacityError for a tier that there is not, and for what is no number."""
    found: dict[str, float] = {}
    for name, value in given.items():
        tier, number = gpu_tiers.named(name), _fleet.as_float(value)
        if tier is None:
            raise CapacityError(f"{option}: {name!r} is no tier: give one of {', '.join(gpu_tiers.TIERS)}")
        if number is None or number < 0:
            raise CapacityError(f"{option} of {name} is {value!r}: give a number, 0 or more")
        found[tier.name] = number
    return found


def row(
    model: Model,
    at_hand: Gpus,
    given: Mapping[str, Any],
    size: int,
    load: Load | None,
    prices: Mapping[str, float],
    measured: Mapping[str, float],
) -> dict[str, Any]:
    """Return one kind of GPU, judged, with tensor parallel ``size``.

    0 is the smallest with which the model fits, or, where a load is to be estimated, the one that carries it for least.
    """
    tier = at_hand.tier
    asked = flags(given, size or 1, at_hand.memory, tier is not None and tier.generation == "ampere")
    name, example = (tier.name, PRICES[tier.name].usd) if tier else ("", 0.0)
    there = replace(load, tokens_per_second=measured.get(name, 0.0)) if load else None
    price = _Price(prices.get(name, example), name not in prices)
    if size:
        return _judged(model, at_hand, asked, there, price)
    works = [one for one in sizes(model.shape) if replace(asked, tensor_parallel_size=one).gpus <= at_hand.count] or [1]
    judged = [_judged(model, at_hand, replace(asked, tensor_parallel_size=one), there, price) for one in works]
    fitting = [one for one in judged if one["verdict"] == FITS]
    sized = [one for one in fitting if one["sizing"] and not one["sizing"]["measured"]]
    return min(sized, key=lambda one: one["sizing"]["usd_per_hour"], default=(fitting or judged[-1:])[0])


@dataclass(frozen=True)
class _Price:
    """Of a GPU and hour, and whether it is only the example of ``_gpu.prices``."""

    usd: float
    example: bool


def _judged(model: Model, at_hand: Gpus, asked: Flags, load: Load | None, price: _Price) -> dict[str, Any]:
    if asked.gpus > at_hand.count:
        text = f"tensor parallel {asked.tensor_parallel_size} x pipeline {asked.pipeline_parallel_size}"
        text += f" x data parallel {asked.data_parallel_size}" if asked.data_parallel_size > 1 else ""
        raise CapacityError(f"gpus is {at_hand.count}, and a replica takes {asked.gpus} ({text}): give as many or more")
    found = fit(model, asked, at_hand.memory)
    tokens = load.input_tokens + load.output_tokens if load else 0
    told: dict[str, Any] = {
        "gpu_type": at_hand.tier.name if at_hand.tier else "",
        "quantization": model.variant,
        "memory_bytes": at_hand.memory,
        "tensor_parallel_size": asked.tensor_parallel_size,
        "gpus": asked.gpus,
        "tensor_parallel_sizes": sizes(model.shape),
        **asdict(found),
        "kv_bytes_per_token": kv.kv_bytes_per_token(model.shape, asked.cache),
        "useful_concurrency": useful_concurrency(model, asked, found, tokens) if load else None,
        "changes": [] if found.verdict in (FITS, UNKNOWN) else [asdict(one) for one in changes(model, asked, at_hand)],
        "sizing": None,
        "sizing_reason": "",
    }
    if load and found.verdict == FITS:
        try:
            sized = sizing(model, asked, found, at_hand.tier, load, price.usd)
            told["sizing"] = {**asdict(sized), "usd_per_gpu_hour": price.usd, "example_price": price.example}
        except CapacityError as error:  # the other tiers are worth telling
            told["sizing_reason"] = str(error)
    return told


_FIT_HEAD = ("GPUs", "weights GiB", "cache GiB", "tokens", "of the longest", "of the load's", "verdict")
_LOAD_HEAD = ("GPUs", "replicas", "because of", "tokens/s each", "USD/h", "USD/month", "scaled", "USD/1M out", "in+out")


def lines(rows: Sequence[Mapping[str, Any]], load: Load | None = None) -> list[str]:
    """Return the load and the rows as tables: what fits, what would, and where there is a load what it costs."""
    told = [*_assumed(load), ""] if load else []
    told += aligned([_FIT_HEAD, *(_fit_cells(one) for one in rows)])
    for one in rows:
        if one["verdict"] == UNKNOWN:
            told.append(f"{_gpus(one)}: {one['reason']}")
        elif one["reason"]:
            helping = ", or ".join(change["words"] for change in one["changes"][:2]) or "serve a smaller model"
            told.append(f"{_gpus(one)}: {one['reason']}: {helping}")
        elif one["fitted"] and one["length"]:
            told.append(f"{_gpus(one)}: max-model-len is what fits: about {_whole(one['length'])} tokens")
    told += [f"{_gpus(one)}: {one['sizing_reason']}" for one in rows if one["sizing_reason"]]
    sized = [one for one in rows if one["sizing"]]
    if sized:
        told += ["", *aligned([_LOAD_HEAD, *(_load_cells(one) for one in sized)])]
        if not all(one["sizing"]["measured"] for one in sized):
            told.append("tokens/s with ~ are estimates, good to a factor of two: measure, and give tokens_per_second")
        examples = dict.fromkeys(one["gpu_type"] for one in sized if one["sizing"]["example_price"])
        if examples:
            seen = ", ".join(f"{name} ({PRICES[name].seller}, {PRICES[name].month})" for name in examples)
            told.append(f"USD of {seen} are examples, others ask half or three times as much: give usd_per_gpu_hour")
    return told


def _assumed(load: Load) -> tuple[str, str]:
    """Return the load and the promises in words: what was assumed is part of the answer."""
    peak = f", {load.peak_factor:g} times as many for {load.peak_hours:g} h of a day" if load.peak_factor > 1 else ""
    first = f", the first within {load.ttft:g} s" if load.ttft else ""
    lengths = f"{load.input_tokens} + {load.output_tokens} tokens"
    return (
        f"Load: {load.requests_per_minute:g} requests a minute of {lengths}{peak}",
        f"Promised: tokens within {load.itl:g} s of each other{first}; {load.spare:.0%} of each replica spare",
    )


def _gpus(one: Mapping[str, Any]) -> str:
    return f"{one['gpus']} x {one['gpu_type'] or 'GPU'}" + (f", {one['quantization']}" if one["quantization"] else "")


def _fit_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _gpus(one),
        _size(one["weights"]),
        _size(None if one["pool"] is None else max(0, one["pool"])),
        _whole(one["cache_tokens"]),
        "-" if one["concurrency"] is None else f"{one['concurrency']:.1f}",
        "-" if one["useful_concurrency"] is None else f"{one['useful_concurrency']:.0f}",
        one["verdict"],
    )


def _load_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    sized = one["sizing"]
    return (
        _gpus(one),
        f"{sized['replicas']} ({sized['base_replicas']} off peak)",
        sized["because"],
        f"{'' if sized['measured'] else '~'}{sized['tokens_per_second']:,.0f}",
        f"{sized['usd_per_hour']:,.2f}",
        _whole(sized["usd_per_month"]),
        _whole(sized["scaled_usd_per_month"]),
        f"{sized['usd_per_million_output_tokens']:.2f}",
        f"{sized['usd_per_million_tokens']:.2f}",
    )


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / GIB:.1f}"


def _whole(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"
