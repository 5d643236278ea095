# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many replicas a load needs, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._gpu.tiers import Tier
from . import kv, parts, weights
from .fit import Fit, Model, useful_concurrency
from .flags import Flags
from .shape import CapacityError

HOURS_OF_MONTH = 730  # a twelfth of a year
# What of the data sheets real kernels reach, about.
_OF_BANDWIDTH, _OF_FLOPS = 0.7, 0.45
# What GPUs of a replica exchange in a second and what each exchange waits for, over NVLink and without it.
_LINK = {True: (300e9, 15e-6), False: (25e9, 50e-6)}


@dataclass(frozen=True)
class Load:
    """What clients ask, and what they were promised.

    Means of a request; ``peak_factor`` is how much more comes for ``peak_hours`` of a day. ``spare`` is the share of a
    replica that stays free at the peak: 30 to 50 % take a replica that fails, a rollout, and what the mean hides.
    ``itl`` is the promised mean time between two tokens, ``ttft`` that to the first one, in seconds (0: no promise);
    ``tokens_per_second`` what a replica was measured to generate within the promises, 0 where nobody has measured.
    """

    requests_per_minute: float
    input_tokens: int
    output_tokens: int
    peak_factor: float = 1.0
    peak_hours: float = 24.0
    spare: float = 0.35
    itl: float = 0.05
    ttft: float = 0.0
    tokens_per_second: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        bounds = (
            ("requests_per_minute", self.requests_per_minute > 0, "above 0"),
            ("input_tokens", self.input_tokens > 0, "above 0"),
            ("output_tokens", self.output_tokens > 0, "above 0"),
            ("peak_factor", self.peak_factor >= 1, "1 or more"),
            ("peak_hours", 0 <= self.peak_hours <= 24, "between 0 and 24"),
            ("spare", 0 <= self.spare < 1, "a share, 0 or more and below 1"),
            ("itl", self.itl > 0, "above 0"),
            ("ttft", self.ttft >= 0, "0 or more"),
            ("tokens_per_second", self.tokens_per_second >= 0, "0 or more"),
        )
        for name, good, words in bounds:
            if not good:
                raise CapacityError(f"{name} is {getattr(self, name)}: give a number {words}")

    def output_per_second(self, factor: float = 1.0) -> float:
        """Return the tokens that must be generated in a second at so many times the load."""
        return self.requests_per_minute / 60 * self.output_tokens * factor

    def tokens_per_month(self) -> tuple[float, float]:
        """Return the prompt tokens and the generated tokens of a month, peaks included."""
        mean = (24 + self.peak_hours * (self.peak_factor - 1)) / 24
        requests = self.requests_per_minute * 60 * HOURS_OF_MONTH * mean
        return requests * self.input_tokens, requests * self.output_tokens


@dataclass(frozen=True)
class Sizing:
    """Replicas for a load and their cost in US dollars.

    ``replicas`` carry the peak with the spare share, ``base_replicas`` the load beside it; ``because`` says what bounds
    them. ``usd_per_month`` is for replicas that always run, ``scaled_usd_per_month`` for a fleet that follows the load.
    ``full_usd_per_million_output_tokens`` is what a million would cost if every second were used.
    """

    replicas: int
    base_replicas: int
    gpus: int
    because: str
    tokens_per_second: float
    measured: bool
    concurrency: float | None
    usd_per_hour: float
    usd_per_month: float
    scaled_usd_per_month: float
    usd_per_million_tokens: float
    usd_per_million_output_tokens: float
    full_usd_per_million_output_tokens: float


def sizing(model: Model, flags: Flags, found: Fit, tier: Tier | None, load: Load, usd_per_gpu_hour: float) -> Sizing:
    """Return the replicas that the load needs, with two at least, because one alone is none while it restarts."""
    each = load.tokens_per_second or expected(model, flags, found, tier, load)
    if each is None:
        raise CapacityError("tokens_per_second of this model on these GPUs cannot be estimated: measure, and give it")
    if not each:
        raise CapacityError(
            f"not even one request has its tokens within {load.itl:g} s of each other"
            f"{f', the first within {load.ttft:g} s' if load.ttft else ''}, by estimate: promise more, take more GPUs "
            "or faster ones, or measure, and give tokens_per_second"
        )
    at_once = useful_concurrency(model, flags, found, load.input_tokens + load.output_tokens)
    peak, because = _replicas(load, load.peak_factor, each, at_once)
    base = _replicas(load, 1.0, each, at_once)[0]
    hourly = usd_per_gpu_hour * flags.gpus
    month = peak * hourly * HOURS_OF_MONTH
    scaled = (base * (24 - load.peak_hours) + peak * load.peak_hours) / 24 * hourly * HOURS_OF_MONTH
    read, generated = load.tokens_per_month()
    return Sizing(
        replicas=peak,
        base_replicas=base,
        gpus=peak * flags.gpus,
        because=because,
        tokens_per_second=each,
        measured=load.tokens_per_second > 0,
        concurrency=at_once,
        usd_per_hour=peak * hourly,
        usd_per_month=month,
        scaled_usd_per_month=scaled,
        usd_per_million_tokens=month / (read + generated) * 1e6,
        usd_per_million_output_tokens=month / generated * 1e6,
        full_usd_per_million_output_tokens=usd_per_million(hourly, each),
    )


def usd_per_million(usd_per_hour: float, tokens_per_second: float) -> float:
    """Return what a million tokens cost at this rate. Exact; prices per 1,000 tokens are a thousandth of it."""
    return usd_per_hour / (tokens_per_second * 3600) * 1e6


def _replicas(load: Load, factor: float, each: float, at_once: float | None) -> tuple[int, str]:
    """Return the replicas at so many times the load, and what bounds them.

    Requests in flight are those that come in a second times how long one lasts (Little's law), at the promised pace.
    """
    free = 1 - load.spare
    wanted = {"tokens": math.ceil(load.output_per_second(factor) / (each * free) - 1e-9), "one in reserve": 2}
    if at_once:
        in_flight = load.requests_per_minute / 60 * factor * load.output_tokens * load.itl
        wanted["KV cache"] = math.ceil(in_flight / (at_once * free) - 1e-9)
    because = max(wanted, key=lambda name: wanted[name])
    return wanted[because], because


def expected(model: Model, flags: Flags, found: Fit, tier: Tier | None, load: Load) -> float | None:
    """Estimate the tokens that a replica generates in a second within the promised pace; None where nothing is known.

    A step reads the weights and the cache of all requests (bandwidth), or computes for them, whichever takes longer;
    after each half of a layer the GPUs of a replica exchange their sums. Prompts take the GPUs meanwhile:
    ``itl = step(batch) + batch x prompt / output``, for the largest batch that keeps the promise and fits. The first
    token waits for the prompts before it (M/D/1, the share of time that prompts take), its own, and a step. Error: up
    to a factor of two. It compares tiers; what is bought follows from a measurement.
    """
    active, each = parts.active_parameters(model.shape), kv.token_bytes(model.shape, flags.cache)
    room = useful_concurrency(model, flags, found, load.input_tokens + load.output_tokens)
    if tier is None or found.weights is None or not active or not each or not room:
        return None
    context = load.input_tokens + load.output_tokens / 2
    read = each * sum(min(context, window or context) for window in model.shape.windows) / flags.pipeline_parallel_size
    how = weights.precision(model.shape, flags.quantization)
    double = 2 if how and how.name == "FP8" and tier.computes("fp8") else 1
    flops, bandwidth = flags.rank_gpus * tier.flops * double * _OF_FLOPS, tier.bandwidth * _OF_BANDWIDTH
    prompt = 2 * active * load.input_tokens / flops + _exchange(model, flags, tier, load.input_tokens)
    best = 0.0
    ranks = flags.data_parallel_size
    for batch in range(1, int(room / ranks) + 1):
        step = max((found.weights + batch * read) / bandwidth, 2 * active * batch / flops)
        step += _exchange(model, flags, tier, batch)
        pace = step + batch * prompt / load.output_tokens
        busy = batch * prompt / load.output_tokens / pace
        first = prompt * (1 + busy / (2 * (1 - busy))) + step
        if pace <= load.itl and (not load.ttft or first <= load.ttft):
            best = max(best, batch / pace)
    return best * ranks


def _exchange(model: Model, flags: Flags, tier: Tier, tokens: int) -> float:
    """Return the seconds in which the GPUs of a replica add up what each computed of so many tokens (a ring)."""
    size, shape = flags.tensor_parallel_size, model.shape
    if size == 1:
        return 0.0
    rate, wait = _LINK[tier.nvlink]
    return 2 * shape.layers * (2 * (size - 1) / size * tokens * shape.hidden * 2 / rate + wait)
