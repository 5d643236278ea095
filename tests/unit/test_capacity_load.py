"""Replicas and cost for a load, with the arithmetic of the reference deployment, and the tables that people read."""

from __future__ import annotations

import json
import pathlib
import types
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._capacity import report
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.fit import Model, fit
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.flags import flags
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.load import Load, Sizing, sizing, usd_per_million
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.shape import CapacityError, shape
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import tiers as gpu_tiers
from ansible_collections.llmops.vllm.plugins.module_utils._gpu.prices import PRICES

models = types.SimpleNamespace(
    **json.loads((pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "model_shapes.json").read_text())
)

SCOUT_FP8 = {**models.SCOUT, "quantization_config": {"quant_method": "fp8"}}
# 1,000 requests a minute, spikes of two to three times as many
REFERENCE: dict[str, Any] = {
    "requests_per_minute": 1000,
    "input_tokens": 750,
    "output_tokens": 250,
    "peak_factor": 2.5,
    "peak_hours": 4,
    "tokens_per_second": 3000,
}


def sized(config: Any = SCOUT_FP8, tier: str = "h100-80gb", size: int = 2, price: float = 2.69, **load: Any) -> Sizing:
    gpu, model = gpu_tiers.TIERS[tier], Model(shape(config))
    asked = flags({"max-model-len": 8192}, size, gpu.memory)
    return sizing(model, asked, fit(model, asked, gpu.memory), gpu, Load(**{**REFERENCE, **load}), price)


@pytest.mark.parametrize(
    ("usd_per_hour", "tokens_per_second", "usd"),
    [
        (5.38, 3000, 0.498),
        (5.38, 3200, 0.467),  # a plan had 0.000469: per 1,000 tokens, not for one
        (1.39, 800, 0.483),
        (1.39, 1331, 0.290),
        (5.98, 3800, 0.437),
    ],
)
def test_price_of_a_million_tokens(usd_per_hour: float, tokens_per_second: float, usd: float) -> None:
    assert usd_per_million(usd_per_hour, tokens_per_second) == pytest.approx(usd, rel=0.002)


def test_reference_deployment() -> None:
    found = sized()
    # 1,000 / 60 x 250 x 2.5 tokens a second, by 3,000 x 0.65 of each replica
    assert (found.replicas, found.base_replicas, found.gpus, found.because) == (6, 3, 12, "tokens")
    assert found.usd_per_hour == pytest.approx(12 * 2.69)
    assert found.usd_per_month == pytest.approx(23_564, abs=1)  # a plan had 350 to 450
    assert found.scaled_usd_per_month == pytest.approx((20 * 3 + 4 * 6) / 24 * 5.38 * 730)
    generated = 1000 * 60 * 730 * 250 * 1.25  # the mean of a day is 1.25 times the base
    assert found.usd_per_million_output_tokens == pytest.approx(found.usd_per_month / generated * 1e6)
    assert found.usd_per_million_tokens == pytest.approx(found.usd_per_million_output_tokens / 4)
    assert found.full_usd_per_million_output_tokens == pytest.approx(0.498, abs=0.001)


@pytest.mark.parametrize(
    ("load", "replicas", "because"),
    [
        ({"spare": 0.0}, 4, "tokens"),
        ({"spare": 0.5}, 7, "tokens"),
        ({"peak_factor": 3}, 7, "tokens"),
        ({"requests_per_minute": 10}, 2, "one in reserve"),
    ],
)
def test_what_bounds_the_replicas(load: dict[str, Any], replicas: int, because: str) -> None:
    found = sized(**load)
    assert (found.replicas, found.because) == (replicas, because)


def test_replicas_for_the_cache_follow_from_what_is_in_flight() -> None:
    found = sized(input_tokens=7000, output_tokens=1000, itl=0.2, tokens_per_second=100_000)
    assert found.because == "KV cache"
    in_flight = 1000 / 60 * 2.5 * 1000 * 0.2
    assert found.concurrency is not None
    assert (found.replicas - 1) * found.concurrency * 0.65 < in_flight <= found.replicas * found.concurrency * 0.65


def test_estimate_is_of_the_order_that_is_measured() -> None:
    """Public measurements of Llama 3.3 70B on 4 x H100 with prompts of 1,000 tokens: 1,500 to 3,000 tokens a second."""
    found = sized(models.LLAMA_70B, size=4, tokens_per_second=0, input_tokens=1000)
    assert not found.measured
    assert 1000 < found.tokens_per_second < 3500


def test_estimate_knows_what_a_tier_is_good_for() -> None:
    by_tier = {
        tier: sized(models.LLAMA_8B, tier, 1, tokens_per_second=0, itl=0.15).tokens_per_second
        for tier in ("l4", "l40s", "a100-80gb", "h100-80gb", "b200-180gb")
    }
    assert sorted(by_tier, key=lambda tier: by_tier[tier]) == list(by_tier)


def test_estimate_keeps_the_promised_pace() -> None:
    with pytest.raises(CapacityError, match="not even one request has its tokens within 0.001 s"):
        sized(models.LLAMA_70B, size=4, tokens_per_second=0, itl=0.001)


def test_estimate_keeps_the_promised_first_token() -> None:
    long = {"tokens_per_second": 0, "input_tokens": 8000, "itl": 0.2}
    free, kept = (sized(models.LLAMA_70B, size=4, ttft=ttft, **long).tokens_per_second for ttft in (0, 1.5))
    assert 0 < kept < free
    with pytest.raises(CapacityError, match=r"within 0.2 s of each other, the first within 0.1 s, by estimate"):
        sized(models.LLAMA_70B, size=4, ttft=0.1, **long)


def test_the_answer_says_what_was_assumed_and_whose_prices_these_are() -> None:
    load = Load(**REFERENCE)
    found = rows("l4", "h100-80gb", load=load, config=models.LLAMA_8B)
    told = report.lines(found, load)
    assert told[0].startswith("Load: 1000 requests a minute of 750 + 250 tokens")
    assert [line for line in told if line.startswith("USD of")] == [
        "USD of h100-80gb (RunPod, 2026-11) are examples, others ask half or three times as much: give usd_per_gpu_hour"
    ]


def test_a_tier_that_cannot_keep_the_pace_does_not_hide_the_others() -> None:
    told = rows("l4", "h100-80gb", "h200-141gb", load=Load(**{**REFERENCE, "itl": 0.03}))
    assert [bool(row["sizing"]) for row in told] == [False, True, True]
    slow = rows("h100-80gb", load=Load(**{**REFERENCE, "itl": 0.001}))
    assert [line for line in report.lines(slow) if line.startswith("4 x h100-80gb: not even one request")]


def test_what_cannot_be_estimated_is_told() -> None:
    with pytest.raises(CapacityError, match="cannot be estimated: measure, and give it"):
        sized({**models.LLAMA_8B, "model_type": "new"}, size=1, tokens_per_second=0)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute is 0: give a number above 0"),
        ({"output_tokens": -1}, "output_tokens is -1"),
        ({"peak_factor": 0.5}, "peak_factor is 0.5: give a number 1 or more"),
        ({"peak_hours": 25}, "peak_hours is 25: give a number between 0 and 24"),
        ({"spare": 1}, "spare is 1: give a number a share, 0 or more and below 1"),
    ],
)
def test_load_that_means_nothing(load: dict[str, Any], words: str) -> None:
    with pytest.raises(CapacityError) as told:
        sized(**load)
    assert words in str(told.value)


def rows(*kinds: str, load: Load | None = None, config: Any = models.LLAMA_70B, size: int = 0) -> list[dict[str, Any]]:
    model, settings = Model(shape(config)), {"max-model-len": 32768}
    return [
        report.row(model, report.gpus(kind, 0, 8), settings, size, load, {"l4": 0.5}, {"l4": 900}) for kind in kinds
    ]


def test_the_smallest_size_that_fits_is_taken() -> None:
    found = rows("h100-80gb", "h200-141gb", "l4", "t4")
    assert [row["tensor_parallel_size"] for row in found] == [4, 2, 8, 8]
    assert [row["verdict"] for row in found] == ["fits", "fits", "tight", "does not fit"]
    assert [bool(row["changes"]) for row in found] == [False, False, True, True]


def test_a_load_is_carried_by_the_size_that_costs_least() -> None:
    """Two GPUs hold the weights and no requests to speak of."""
    model, at_hand, load = Model(shape(models.LLAMA_70B)), report.gpus("h100-80gb", 0, 8), Load(**REFERENCE)
    by_size = {size: report.row(model, at_hand, {"max-model-len": 8192}, size, load, {}, {}) for size in (2, 4, 8)}
    assert all(row["verdict"] == "fits" for row in by_size.values())
    chosen = report.row(model, at_hand, {"max-model-len": 8192}, 0, load, {}, {})
    assert chosen == min(by_size.values(), key=lambda row: row["sizing"]["usd_per_hour"])
    measured = report.row(model, at_hand, {"max-model-len": 8192}, 0, load, {}, {"h100-80gb": 900})
    assert measured["tensor_parallel_size"] == 2  # no reason to think that it was measured with another


def test_prices_and_measurements_are_those_given_else_examples_and_estimates() -> None:
    load = Load(**REFERENCE)
    found = rows("l4", "h100-80gb", load=load, config=models.LLAMA_8B)
    assert [row["sizing"]["usd_per_gpu_hour"] for row in found] == [0.5, PRICES["h100-80gb"].usd]
    assert [row["sizing"]["measured"] for row in found] == [True, False]
    assert found[0]["sizing"]["tokens_per_second"] == 900


def test_table_for_people() -> None:
    load = Load(**REFERENCE)
    told = report.lines(rows("h100-80gb", "t4", load=load))
    assert told[0].split()[:3] == ["GPUs", "weights", "GiB"]
    assert told[1].startswith("4 x h100-80gb") and told[1].endswith("fits")
    assert told[3].startswith("8 x t4: the weights take") and "serve a revision with 4-bit weights" in told[3]
    assert told[5].split()[:2] == ["GPUs", "replicas"]
    assert " ~" in told[6]
    assert told[-2].startswith("tokens/s with ~ are estimates")


@pytest.mark.parametrize(
    ("kind", "memory", "words"),
    [("h100", 0, "'h100' is no tier: give one of t4, "), ("", 0, "give the tier of the GPUs, or the bytes of one")],
)
def test_gpus_that_are_not_known(kind: str, memory: int, words: str) -> None:
    with pytest.raises(CapacityError) as told:
        report.gpus(kind, memory, 8)
    assert words in str(told.value)


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(CapacityError, match="gpus is 8, and a replica takes 16"):
        rows("h100-80gb", size=16)


@pytest.mark.parametrize(
    ("given", "words"), [({"h100": 2}, "is no tier"), ({"l4": "much"}, "usd of l4 is 'much': give a number")]
)
def test_numbers_by_tier_that_mean_nothing(given: dict[str, Any], words: str) -> None:
    with pytest.raises(CapacityError, match=words):
        report.by_tier("usd", given)


def test_settings_lie_over_those_of_a_profile() -> None:
    assert report.settings("", {"max_model_len": 8192}) == {"max-model-len": 8192}
    long_context = report.settings("long_context", {"--max-num-seqs": 8, "model": "/srv/llama"})
    assert (long_context["kv-cache-dtype"], long_context["max-num-seqs"]) == ("fp8", 8)


def test_table_tells_the_length_that_fits_and_what_is_not_known() -> None:
    at_hand = report.gpus("l4", 0, 8)
    fitted = report.row(Model(shape(models.LLAMA_8B)), at_hand, {"max-model-len": "auto"}, 1, None, {}, {})
    told = report.lines([fitted])
    assert told[2:] == [f"1 x l4: max-model-len is what fits: about {fitted['length']:,} tokens"]
    unknown = report.row(Model(shape(models.LLAMA_8B)), at_hand, {"cpu-offload-gb": 8}, 1, None, {}, {})
    told = report.lines([unknown])
    assert told[1].split()[-2:] == ["not", "known"]
    assert told[2:] == ["1 x l4: cpu-offload-gb keeps weights in the host's memory: what fits cannot be computed"]
