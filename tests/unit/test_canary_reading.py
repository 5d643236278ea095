"""What is read out of a ``/metrics`` page of vLLM 0.32, and what is handed from call to call."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gate import canary_reading as reading
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError

TESTS = next(folder for folder in pathlib.Path(__file__).parents if folder.name == "tests")
MEASURED = json.loads((TESTS / "fakes" / "vllm" / "metrics_0.32.json").read_text())
PAGE = """\
process_start_time_seconds 1.7954e+09
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 12.5
vllm:time_to_first_token_seconds_sum{engine="1",model_name="m"} 7.5
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 60.0
vllm:time_to_first_token_seconds_count{engine="1",model_name="m"} 40.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="m"} 60.0
vllm:request_generation_tokens_bucket{engine="0",le="10.0",model_name="m"} 20.0
vllm:request_generation_tokens_bucket{engine="0",le="+Inf",model_name="m"} 30.0
vllm:request_generation_tokens_bucket{engine="0",le="20.0",model_name="m"} 28.0
vllm:request_generation_tokens_bucket{engine="1",le="10.0",model_name="m"} 0.0
vllm:request_generation_tokens_bucket{engine="1",le="20.0",model_name="m"} 1.0
vllm:request_generation_tokens_bucket{engine="1",le="+Inf",model_name="m"} 1.0
vllm:request_params_max_tokens_bucket{engine="0",le="1.0",model_name="m"} 9.0
vllm:request_params_max_tokens_bucket{engine="0",le="2.0",model_name="m"} 30.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 80.0
vllm:request_success_total{engine="0",finished_reason="error",model_name="m"} 2.0
vllm:request_success_created{engine="0",finished_reason="error",model_name="m"} 1.7e+09
vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"} 4.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} NaN
http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 90.0
http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 5.0
http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 3.0
http_requests_total{handler="/v1/completions",method="POST",status="5xx"} 6.0
http_requests_total{handler="/v1/models",method="GET",status="2xx"} 700.0
http_requests_total{handler="none",method="POST",status="4xx"} 70.0
"""


def test_a_page_is_summed_over_engines_and_ways_to_ask():
    found = reading.reading_of(PAGE)
    assert (found.running, found.waiting, found.born) == (4, 2, 1.7954e9)
    c = found.counts
    assert (c.ttft_sum, c.ttft_count, c.one_token, c.started) == (20.0, 100, 9, 91)
    assert (c.served, c.refused, c.failed, c.rejected) == (95, 3, 6, 4)
    assert (c.stop, c.error, c.cache_hits) == (80, 2, 0)
    assert c.answered == 92 and c.errors == 8
    assert c.output_near == 20 * 5 + 9 * 15 + 2 * 20
    assert c.output_squares == pytest.approx(20 * 100 / 3 + 9 * 700 / 3 + 2 * 20**2)


def test_every_name_that_is_read_was_measured():
    """A name that vLLM 0.32 does not have would be 0 for ever, and nothing would be compared."""
    known = set()
    for name, told in MEASURED.items():
        known |= {f"{name}_sum", f"{name}_count", f"{name}_bucket"} if told["type"] == "histogram" else {name}
    assert known >= reading._NAMES
    assert "1.0" in MEASURED["vllm:request_params_max_tokens"]["le"]
    assert set(reading.FINISHED) == set(MEASURED["vllm:request_success_total"]["finished_reason"])


def test_a_page_of_another_program_is_told():
    with pytest.raises(ApiError, match="this is not a vLLM server"):
        reading.reading_of("up 1\n")


def test_a_difference_leaves_out_what_was_before():
    before = reading.Counts(ttft_count=10, ttft_sum=5, served=10)
    after = reading.Counts(ttft_count=30, ttft_sum=7, served=28, failed=2)
    found = after.since(before)
    assert (found.ttft_count, found.ttft_sum, found.served, found.failed) == (20, 2, 18, 2)
    assert reading.total([found, found]).served == 36


@pytest.mark.parametrize(
    ("born", "served", "anew"), [(100.0, 20, False), (100.5, 20, False), (170.0, 20, True), (100.0, 9, True)]
)
def test_a_server_that_was_started_anew_is_noticed(born, served, anew):
    before = reading.Reading(reading.Counts(served=10), born=100.0)
    assert reading.Reading(reading.Counts(served=served), born=born).anew(before) is anew


def test_a_reading_survives_the_way_through_json():
    found = reading.reading_of(PAGE)
    assert reading.reading_from(json.loads(json.dumps(found.data())), "watch") == found


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data.pop("running"), "watch is not what an earlier call of this module returned"),
        (lambda data: data["counts"].pop("served"), "watch.counts is not what an earlier call"),
        (lambda data: data["counts"].update(served="many"), "watch.counts.served is 'many', needed is a number"),
        (lambda data: data.update(born=True), "watch.born is True, needed is a number"),
        (lambda data: data.update(born=float("nan")), "watch.born is nan, needed is a number"),
    ],
)
def test_a_reading_that_is_none_is_refused(spoil, words):
    data = reading.reading_of(PAGE).data()
    spoil(data)
    with pytest.raises(reading.CanaryError, match=words.replace(".", r"\.")):
        reading.reading_from(data, "watch")
