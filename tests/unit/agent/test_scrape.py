"""The few lines of /metrics that the judge needs."""

from __future__ import annotations

import json
import pathlib

from ansible_collections.llmops.vllm.plugins.module_utils._agent import scrape

FAMILIES = pathlib.Path(__file__).resolve().parents[2] / "fakes" / "vllm" / "metrics_0.32.json"

TEXT = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny } 1 2"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 100.0
vllm:iteration_tokens_total_count{engine="1",model_name="tiny"} 11.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 1.5
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 3.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="tiny"} 0.5
vllm:request_queue_time_seconds_count{engine="0",model_name="tiny"} 3.0
process_resident_memory_bytes 6.4677888e+08
"""


def test_sums_over_engines_and_takes_no_longer_name():
    seen = scrape.read(TEXT)
    assert seen is not None
    assert (seen.running, seen.waiting, seen.steps, seen.kv_usage) == (5, 1, 111, 0.5)
    assert (seen.ttft_sum, seen.ttft_count, seen.queue_sum, seen.queue_count) == (1.5, 3, 0.5, 3)
    assert seen.resident_bytes == 646778880


def test_what_is_no_vllm_is_nothing():
    for text in (b"", b"<html>", TEXT.replace(b"vllm:num_requests_running", b"up"), b"\xff\xfe" * 1000):
        assert scrape.read(text) is None


def test_values_that_are_no_numbers_are_left_out():
    strange = TEXT.replace(b"} 0.25", b"} NaN").replace(b"} 3.0\nvllm:request_queue", b"} +Inf\nvllm:request_queue")
    seen = scrape.read(strange + b'vllm:kv_cache_usage_perc{engine="2"\nvllm:kv_cache_usage_perc{} \n')
    assert seen is not None
    assert (seen.kv_usage, seen.ttft_count) == (0.5, 0)


def test_every_name_is_one_that_vllm_has():
    measured = FAMILIES.read_text()
    assert json.loads(measured)
    for name in (
        scrape._RUNNING,
        scrape._WAITING,
        scrape._STEPS,
        scrape._TTFT_SUM,
        scrape._QUEUE_SUM,
        scrape._KV_USAGE,
    ):
        family = name.decode().removesuffix("_count").removesuffix("_sum")
        assert f'"{family}"' in measured or family in measured
