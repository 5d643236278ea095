# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures to look beside: published ones of others, and those that the inventory says it expects.

A published figure stands here only if its page says model, GPU, version and load, and the load is that of a recipe. For
everything else there is no figure yet; nothing is guessed from a data sheet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import LlmopsError
from .._fleet import as_float
from .._gpu import tiers as gpu_tiers
from .recipes import RECIPES

# What may be expected of a replica, and how it is called there.
NAMES = (
    "output_throughput",
    "good_share",
    *(f"{latency}_p{percentile}_ms" for latency in ("ttft", "tpot", "itl") for percentile in (50, 90, 99)),
)


@dataclass(frozen=True)
class Published:
    """Figures of somebody else, of one replica. ``ttft_ms`` and ``tpot_ms`` are as the page has them: it does not say
    whether mean or median."""

    model: str  # repository, in lower case
    tier: str  # as in _gpu.tiers
    gpus: int
    version: str  # of vLLM
    profile: str  # whose recipe has this load
    output_throughput: float
    ttft_ms: float
    tpot_ms: float
    source: str
    date: str

    def words(self) -> str:
        """All of it in one line."""
        return (
            f"published {self.date}, vLLM {self.version} on {self.gpus} {self.tier}: "
            f"{self.output_throughput:,.0f} tokens a second, TTFT {self.ttft_ms:g} ms, TPOT {self.tpot_ms:g} ms "
            f"({self.source})"
        )


_VULTR = "https://docs.vultr.com/inference-cookbook/cuda/optimization/concurrency-tuning"
_NANO = "nvidia/nvidia-nemotron-3-nano-30b-a3b-fp8"
# 2048 tokens in, 512 out, random, at 16 and at 256 a time.
PUBLISHED = (
    Published(_NANO, "b200-180gb", 2, "0.16.0", "baseline", 3455, 160, 4.32, _VULTR, "2026-03-11"),
    Published(_NANO, "b200-180gb", 2, "0.16.0", "batch", 15552, 1254, 11.77, _VULTR, "2026-03-11"),
)


def published(model_source: str, gpu_type: str, gpus: int, profile: str) -> Published | None:
    """Return the published figures for this model on these GPUs; a tier may be named in short (``b200``)."""
    model, tier = model_source.partition("://")[2].lower(), gpu_tiers.named(gpu_type)
    wanted = (model, tier.name if tier else "", gpus, profile)
    return next((one for one in PUBLISHED if (one.model, one.tier, one.gpus, one.profile) == wanted), None)


def expected(given: Any, profile: str) -> dict[str, float]:
    """Return what ``llmops_benchmark_expected`` says of a profile; LlmopsError when it says nothing that is known."""
    if not isinstance(given, Mapping) or not all(isinstance(figures, Mapping) for figures in given.values()):
        raise LlmopsError(
            "llmops_benchmark_expected is no mapping of profiles to figures: give it as "
            "{baseline: {output_throughput: 2400}}"
        )
    for name, figures in given.items():
        if name not in RECIPES:
            raise LlmopsError(f"llmops_benchmark_expected.{name} is no profile: there are {', '.join(RECIPES)}")
        for figure, value in figures.items():
            where = f"llmops_benchmark_expected.{name}.{figure}"
            if figure not in NAMES:
                raise LlmopsError(f"{where} is unknown: known are {', '.join(NAMES)}")
            if (as_float(value) or 0) <= 0:
                raise LlmopsError(f"{where} is {value!r}: give a number above 0")
    return {str(figure): float(value) for figure, value in given.get(profile, {}).items()}
