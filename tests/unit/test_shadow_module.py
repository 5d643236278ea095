"""The module vllm_shadow against two fake vLLMs over real sockets."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.fakes.vllm.running import KEY, await_that
from tests.ports import free_port

MIX = [
    {"prompt_tokens": 30, "output_tokens": 8, "weight": 3},
    {"prompt_tokens": 300, "output_tokens": 16, "weight": 1},
]
QUICK = {"FAKE_VLLM_TTFT_MS": "5", "FAKE_VLLM_ITL_MS": "2"}


@pytest.fixture
def two(start):
    return start(QUICK), start(QUICK)


def args(new, old, **more):
    quick = {"requests": 30, "ignore": 2, "parallel": 4, "mix": MIX, "timeout": 30}
    given = {"url": new.url, "old_url": old.url, "api_key": KEY, "model": "m", **quick, **more}
    return {name: value for name, value in given.items() if value is not None}


def test_equals_are_not_worse_and_are_asked_the_same(run_module, two):
    new, old = two
    result = run_module("vllm_shadow", args(new, old))
    assert not result.failed and not result["changed"], result
    assert result["verdict"] == "not_worse" and result["same_model"] is True
    assert (result["pairs"], result["clipped"], result["held"]) == (30, 0, 0)
    assert result["divergence"] == {"differ": 0, "common_prefix": 1.0}
    for side in ("new", "old"):
        told = result[side]
        assert (told["requests"], told["errors"], told["finished"]) == (30, 0, {"length": 30})
        assert 9 < told["output_tokens"] < 11 and 80 < told["prompt_tokens"] < 120
    asked = {fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}') for fake in two}
    assert len(asked) == 1
    assert result["mix"] == [{**kind, "weight": float(kind["weight"])} for kind in MIX]
    assert [check["samples_old"] for check in result["checks"]] == [30] * 5
    assert KEY not in json.dumps(result)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "wrong_answers"}, "30 of 30 greedy answers differ, common prefix 0.00"),
        ({"kind": "stop_early"}, "answers that ended by themselves 100 % against 0 %"),
        ({"kind": "slow", "ttft_factor": 40}, "worse: ttft"),
        ({"kind": "slow", "itl_factor": 15}, "itl"),
        ({"kind": "error_500"}, "answered 500: EngineCore encountered an issue"),
        ({"kind": "sse_error"}, "answered 200, but EngineCore encountered an issue"),
    ],
)
def test_a_worse_candidate_fails_and_says_why(run_module, two, fault, words):
    new, old = two
    new.fault(**fault)
    result = run_module("vllm_shadow", args(new, old))
    assert result.failed and result["verdict"] == "worse"
    assert result["msg"].startswith(f"{new.url} against {old.url}: worse: ") and words in result["msg"]


def test_a_slower_old_replica_is_no_reproach(run_module, two):
    new, old = two
    old.fault("slow", factor=10)
    assert run_module("vllm_shadow", args(new, old))["verdict"] == "not_worse"


def test_another_model_may_answer_otherwise(run_module, start, site):
    new = start(QUICK, **{"model": str(site / "b"), "served-model-name": ["m", "m@b"]})
    result = run_module("vllm_shadow", args(new, start(QUICK)))
    assert result["verdict"] == "not_worse" and result["same_model"] is False
    assert result["divergence"]["differ"] == 30 and result["checks"][4]["result"] == "not_compared"


def test_what_is_longer_than_the_context_is_cut(run_module, start):
    new = start(QUICK, **{"max-model-len": 256})
    result = run_module("vllm_shadow", args(new, start(QUICK)))
    assert not result.failed and result["clipped"] == 8 and result["new"]["errors"] == 0


def test_too_little_time_is_not_praised(run_module, start):
    new, old = start({**QUICK, "FAKE_VLLM_ITL_MS": "50"}), start(QUICK)
    began = time.monotonic()
    result = run_module("vllm_shadow", args(new, old, timeout=3, parallel=1))
    assert not result.failed and result["verdict"] == "not_enough_samples" and time.monotonic() - began < 6
    assert 0 < result["pairs"] < 30 and result["msg"].endswith("; needed are 30")


def test_clients_of_the_old_replica_go_first(run_module, start):
    """While a request waits there, nothing is asked; when none does any more, all is asked."""
    new, old = start(QUICK), start({**QUICK, "FAKE_VLLM_ITL_MS": "10"}, **{"max-num-seqs": 1})
    running, waiting = old.post(150, ignore_eos=True), old.post(4, ignore_eos=True)
    await_that(lambda: old.busy() == (1, 1), "a client's request waits")
    result = run_module("vllm_shadow", args(new, old, parallel=1, requests=5, samples=5))
    assert result["held"] >= 0.5 and result["verdict"] == "not_worse" and result["pairs"] == 5
    for client in (running, waiting):
        assert client.getresponse().status == 200
        client.close()


def test_a_candidate_that_dies_meanwhile_is_worse(run_module, two):
    new, old = two
    new.fault("slow", factor=5)
    timer = threading.Timer(1, new.kill)
    timer.start()
    result = run_module("vllm_shadow", args(new, old, requests=500))
    timer.join()
    assert result.failed and result["verdict"] == "worse" and "errors" in result["msg"]
    assert result["pairs"] < 500, "it is not asked on and on"


@pytest.mark.parametrize("which", ["url", "old_url"])
def test_a_replica_that_is_not_there_is_told(run_module, two, which):
    closed = f"http://127.0.0.1:{free_port()}"
    result = run_module("vllm_shadow", args(*two, **{which: closed}))
    assert result.failed
    assert result["msg"] == f"nothing was compared: GET {closed}/v1/models: connection refused"


def test_an_old_replica_that_answers_nothing_is_no_measure(run_module, two):
    new, old = two
    old.fault("error_500")
    result = run_module("vllm_shadow", args(new, old))
    assert result.failed and "nothing was compared, the old replica answered none of 32" in result["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "other"}, "lists m, m@a; other is missing"),
        ({"api_key": "another-key-0123456789"}, "does not accept the key in api_key"),
        ({"old_api_key": "another-key-0123456789"}, "does not accept the key in api_key"),
        ({"parallel": 99}, "parallel is 99: give 1 to 8"),
        ({"mix": []}, "mix is empty"),
        ({"access_log": "/none", "pool": "main"}, "mutually exclusive"),
        ({"access_log": "/none", "mix": None}, "pool"),
    ],
)
def test_bad_input_is_refused(run_module, two, change, words):
    result = run_module("vllm_shadow", args(*two, **change))
    assert result.failed and words in result["msg"]
    assert "another-key" not in json.dumps(result)


def test_check_mode_asks_nothing(run_module, two, tmp_path):
    result = run_module("vllm_shadow", args(*two), check=True)
    assert result["skipped"] and not result["changed"] and "verdict" not in result
    assert all(fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}') == 0 for fake in two)
    log = str(tmp_path / "none")
    wrong = run_module("vllm_shadow", args(*two, mix=None, access_log=log, pool="main"), check=True)
    assert wrong.failed and f"access_log {log}: No such file or directory" in wrong["msg"]


def test_a_log_that_tells_too_little_is_said_and_a_synthetic_mix_is_replayed(run_module, two, tmp_path):
    log = tmp_path / "access.log"
    log.write_text("")
    told = run_module("vllm_shadow", args(*two, mix=None, access_log=str(log), pool="main"), check=True)
    assert told["notes"] == [
        f"access_log {log}: its last 8 MiB hold 0 answered completions of pool main, needed are "
        f"{told['notes'][0].split('needed are ')[1].split(':')[0]}: a synthetic mix of chats was replayed instead"
    ]
    assert len(told["mix"]) > 1
