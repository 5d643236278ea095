"""vllm_canary against the fake vLLM: real servers, real requests, faults that are switched."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest

from tests.fakes.vllm.running import KEY
from tests.ports import free_port

ENV = {"FAKE_VLLM_ITL_MS": "2"}


@contextlib.contextmanager
def traffic(*fakes, tokens=4, workers=6):
    """Requests to all of them in turn, some at a time, until the block ends; what fails is the module's business."""
    over = threading.Event()

    def ask():
        while not over.is_set():
            for fake in fakes:
                with contextlib.suppress(Exception):
                    fake.complete(tokens)

    threads = [threading.Thread(target=ask, daemon=True) for _worker in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def entries(names, fakes):
    return [{"id": name, "url": fake.url} for name, fake in zip(names, fakes)]


def args(new, old, **more):
    sides = {"new": entries(["g1/r0"], new), "old": entries(["g2/r0", "g3/r0"], old)}
    return {**sides, "api_key": KEY, "soak": 0, "timeout": 30, "interval": 0.2, **more}


@pytest.fixture
def fakes(start):
    """A new replica and an old one, of the same model."""
    return [start(ENV, **{"max-num-seqs": 16}) for _fake in range(2)]


def test_equal_replicas_are_not_worse(run_module, fakes):
    new, old = fakes
    with traffic(new, old):
        result = run_module("vllm_canary", args([new], [old], ttft_seconds=2, itl_seconds=1))
    assert not result.failed and not result["changed"]
    assert (result["verdict"], result["against"]) == ("not_worse", "old")
    assert [check["name"] for check in result["checks"]] == ["ttft", "itl", "errors", "output"]
    assert {check["result"] for check in result["checks"]} == {"not_worse"}
    assert min(result[side]["requests"] for side in ("new", "old")) >= 100
    assert result["new"]["replicas"] == ["g1/r0"] and result["new"]["output_tokens"] == 4
    assert f"over {result['new']['requests']} requests at the new and {result['old']['requests']}" in result["msg"]
    assert result["new"]["errors"] == 0 and KEY not in json.dumps(result)


@pytest.mark.parametrize(
    ("fault", "tokens", "check", "words"),
    [
        ({"kind": "slow", "ttft_factor": 60}, 4, "ttft", "worse: TTFT "),
        ({"kind": "slow", "itl_factor": 40}, 4, "itl", "ITL "),
        ({"kind": "error_500"}, 4, "errors", "worse: errors "),
        ({"kind": "stop_early"}, 60, "output", "worse: answers of 30 tokens against 60 from the same model"),
    ],
)
def test_a_worse_replica_fails_the_module(run_module, fakes, fault, tokens, check, words):
    new, old = fakes
    new.fault(**fault)
    with traffic(new, old, tokens=tokens, workers=10):
        result = run_module("vllm_canary", args([new], [old]))
    assert result.failed and result["verdict"] == "worse"
    assert words in result["msg"], result["msg"]
    assert check in [one["name"] for one in result["checks"] if one["result"] == "worse"]


def test_a_stream_that_breaks_inside_http_200_is_an_error(run_module, fakes):
    new, old = fakes
    new.fault("sse_error")

    first = run_module("vllm_canary", args([new], [old], return_after=0.01, ignore=0, samples=30))
    assert first["verdict"] == "watching"
    for fake in [new, old] * 30:
        with contextlib.closing(fake.post(4, stream=True, ignore_eos=True)) as connection:
            connection.getresponse().read()
    result = run_module("vllm_canary", args([new], [old], ignore=0, samples=30, watch=first["watch"]))
    assert result.failed and "errors 30 of 30 against 0 of 30 (100.00 % against 0.00 %)" in result["msg"]


def test_lengths_of_another_model_are_not_compared(run_module, start):
    new = start(ENV, **{"served-model-name": ["m", "m@b"], "max-num-seqs": 16})
    old = start(ENV, **{"max-num-seqs": 16})
    new.fault("stop_early")
    with traffic(new, old, tokens=60):
        result = run_module("vllm_canary", args([new], [old], ttft_seconds=2, itl_seconds=1))
    assert result["verdict"] == "not_worse", result["msg"]
    assert result["new"]["output_tokens"] == 30 and result["old"]["output_tokens"] == 60
    assert "lengths of different models are not compared" in result["notes"]


def test_too_little_traffic_is_said_and_is_no_failure(run_module, fakes):
    new, old = fakes
    result = run_module("vllm_canary", args([new], [old], timeout=0.5))
    assert not result.failed and result["verdict"] == "not_enough_traffic"
    assert result["msg"].startswith("not enough traffic: of the first 50 requests, which are ignored, came: g1/r0 0")
    assert result["progress"][0].startswith("0 s: of the first 50")


def test_probes_are_no_traffic(run_module, fakes):
    new, old = fakes
    with traffic(new, old, tokens=1):
        result = run_module("vllm_canary", args([new], [old], ignore=0, timeout=1.5))
    assert result["verdict"] == "not_enough_traffic"
    assert result["new"]["one_token_requests"] > 50 and result["new"]["requests"] < 20


def test_a_new_replica_that_dies_is_worse(run_module, fakes):
    new, old = fakes
    killer = threading.Timer(0.5, new.kill)
    killer.start()
    result = run_module("vllm_canary", args([new], [old]))
    killer.join()
    assert result.failed and result["msg"].startswith(f"worse: g1/r0 does not answer: GET {new.url}/metrics: ")


def test_the_record_from_before_stands_for_old_replicas(run_module, fakes):
    replica, other = fakes
    asked = {**args([], [replica, other]), "state": "recorded"}
    with traffic(replica, other):
        before = run_module("vllm_canary", asked)
    assert not before.failed and not before["changed"] and before["verdict"] == "recorded"
    assert before["record"]["replicas"] == ["g2/r0", "g3/r0"]
    assert before["record"]["model"]["revision"] == "a"
    assert before["old"]["requests"] >= 100 and before["new"] == {}
    record = json.loads(json.dumps(before["record"]))
    replica.fault("slow", ttft_factor=60)
    with traffic(replica, workers=10):
        result = run_module("vllm_canary", args([replica], [], record=record))
    assert result.failed and result["against"] == "record" and "worse: TTFT" in result["msg"]


def test_check_mode_reads_once_and_compares_nothing(run_module, fakes):
    new, old = fakes
    result = run_module("vllm_canary", args([new], [old]), check=True)
    assert not result.failed and result["skipped"] and result["verdict"] == "not_compared"
    assert result["msg"] == "read once in check mode, nothing was compared: g1/r0, g2/r0"


@pytest.mark.parametrize("key", [KEY, "not-accepted-0123456789"])
def test_check_mode_never_fails_for_what_does_not_answer(run_module, fakes, key):
    url = f"http://127.0.0.1:{free_port()}"
    asked = {**args([], fakes[:1], api_key=key), "new": [{"id": "g1/r0", "url": url}]}
    result = run_module("vllm_canary", asked, check=True)
    assert not result.failed and result["skipped"]
    assert (f"g1/r0 does not answer: GET {url}/v1/models: connection refused" in result["msg"]) == (key == KEY)
    assert ("does not accept the key" in result["msg"]) == (key != KEY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"new": []}, "new names no replica"),
        ({"timeout": 5, "soak": 60}, "timeout is 5, needed is 60 or more"),
        ({"record": {"version": 1}}, "record is not what state=recorded returned"),
        ({"api_key": "not-accepted-0123456789"}, "does not accept the key in api_key"),
    ],
)
def test_what_is_asked_wrongly_is_told(run_module, fakes, change, words):
    new, old = fakes
    result = run_module("vllm_canary", {**args([new], [old]), **change})
    assert result.failed and words in result["msg"]
    assert "not-accepted" not in json.dumps(result)
