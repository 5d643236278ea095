"""The module vllm_golden and the completions below it, against the fake vLLM over real sockets."""

from __future__ import annotations

import json
import time

import pytest
from ansible.module_utils import basic
from ansible_collections.llmops.vllm.plugins.module_utils._gate import completion
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import api

from tests.fakes.vllm.running import KEY
from tests.ports import free_port

SECRET = "the text of a prompt: quiet!"
TEXT = {"name": "text", "prompt": SECRET, "max_tokens": 12, "expect": {"length": {"min": 12, "max": 12}}}
CHAT = {
    "name": "chat",
    "messages": [{"role": "user", "content": SECRET}],
    "max_tokens": 20,
    "expect": {"similarity": 0.8, "regex": "^[a-z ]+$"},
}
PROMPTS = [TEXT, CHAT]


def args(fake, **more):
    return {"url": fake.url, "api_key": KEY, "model": "m", "prompts": PROMPTS, **more}


def recorded(run_module, fake, **more):
    result = run_module("vllm_golden", args(fake, state="recorded", **more))
    assert not result.failed, result
    return result["recorded"]


@pytest.mark.parametrize(("path", "chat"), [("/v1/completions", ()), ("/v1/chat/completions", ({"role": "user"},))])
def test_a_completion_is_timed_and_whole(start, path, chat):
    fake = start({"FAKE_VLLM_TTFT_MS": "60", "FAKE_VLLM_ITL_MS": "10"}, **{"stream-interval": 4})
    question = completion.Question(21, "" if chat else "hello", chat, ignore_eos=True)
    assert question.path == path
    answer = completion.ask(api.Replica(fake.url, KEY), "m", question, 10)
    assert (len(answer.text), answer.tokens, answer.finish_reason) == (21, 21, "length")
    assert 0.06 <= answer.ttft < answer.seconds
    assert 0.008 < answer.itl < 0.05, "the mean over tokens, though an event brings four"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("error_500", "answered 500: EngineCore encountered an issue"),
        ("reject", "answered 503"),
        ("garbage", "answered 200 without events: ?<garbage>"),
        ("sse_error", "answered 200, but EngineCore encountered an issue"),
        ("truncate", "POST http"),
        ("reset", "POST http"),
        ("freeze_engine", "timed out after 1 s"),
    ],
)
def test_an_answer_that_is_not_whole_fails_its_prompt(run_module, start, fault, words):
    fake = start()
    fake.fault(fault)
    result = run_module("vllm_golden", args(fake, prompts=[TEXT], request_timeout=1))
    assert result.failed and "1 of 1 golden prompts failed:" in result["msg"]
    (failure,) = result["failures"]
    assert (failure["name"], failure["expectation"], failure["expected"]) == ("text", "answer", "a whole answer")
    assert words in failure["found"]
    assert result["answers"] == [{"name": "text", "ok": False}]


def test_recorded_answers_pass_again_and_wrong_ones_do_not(run_module, start):
    fake = start()
    known = recorded(run_module, fake)
    assert [len(known[name]["text"]) for name in ("text", "chat")] == [12, 20]
    again = run_module("vllm_golden", args(fake, recorded=known))
    assert not again.failed and not again["changed"] and again["ok"]
    assert (again["asked"], again["passed"], again["failures"]) == (2, 2, [])
    chat = again["answers"][1]
    assert (chat["name"], chat["finish_reason"], chat["tokens"], chat["similarity"]) == ("chat", "length", 20, 1.0)
    assert again["msg"] == f"{fake.url}: all 2 golden prompts were answered as expected"

    fake.fault("wrong_answers")
    wrong = run_module("vllm_golden", args(fake, recorded=known))
    assert wrong.failed and not wrong["ok"] and wrong["passed"] == 1
    assert [failure["expectation"] for failure in wrong["failures"]] == ["regex", "similarity"]
    assert 'chat: regex: expected "^[a-z ]+$", found "!!!!!!!!!!!!!!!!!!!!"' in wrong["msg"]
    assert 'found 0.00: "!!!!!!!!!!!!!!!!!!!!"' in wrong["msg"]
    assert wrong["answers"][1]["similarity"] == 0.0


def test_the_answers_of_another_model_are_not_similar(run_module, start, site):
    known = recorded(run_module, start())
    result = run_module("vllm_golden", args(start(model=str(site / "b")), recorded=known))
    assert result.failed and "chat: similarity: expected at least 0.8" in result["msg"]


def test_neither_prompt_nor_key_is_told_and_no_answer_is_masked(run_module, start):
    fake = start()
    prompts = [{**TEXT, "prompt": "a"}, {**CHAT, "messages": [{"role": "user", "content": "e"}]}]
    known = recorded(run_module, fake, prompts=prompts)
    assert "*" not in json.dumps(known)
    for fault in ("none", "wrong_answers", "error_500"):
        fake.fault(fault)
        told = json.dumps(run_module("vllm_golden", args(fake, recorded=recorded_of(known))))
        assert SECRET not in told and KEY not in told


def test_the_log_of_the_host_holds_neither_prompt_nor_answer_nor_key(run_module, monkeypatch):
    logged = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda self, msg, log_args=None: logged.append((msg, log_args)))
    args = {"state": "valid", "prompts": PROMPTS, "recorded": recorded_of({}), "api_key": KEY}
    assert not run_module("vllm_golden", args).failed
    assert "Invoked with" in logged[0][0] and "parallel" in logged[0][1]
    assert not any(secret in str(logged) for secret in (SECRET, KEY, "'text'"))


def recorded_of(known):
    """Answers for PROMPTS that are made up, of the right questions."""
    question = completion.Question(20, messages=tuple(CHAT["messages"])).digest()
    return {**known, "chat": {"text": "x", "question": question}}


def test_a_record_is_not_made_of_answers_that_fail(run_module, start):
    fake = start()
    fake.fault("wrong_answers")
    result = run_module("vllm_golden", args(fake, state="recorded"))
    assert result.failed and "recorded" not in result
    assert [failure["expectation"] for failure in result["failures"]] == ["regex"]


@pytest.mark.parametrize("change", [{"prompts": [{**TEXT, "max_tokens": 0}]}, {"recorded": {}}])
def test_nothing_is_asked_when_anything_is_wrong(run_module, start, change):
    fake = start()
    result = run_module("vllm_golden", args(fake, **change))
    assert result.failed and "1 problem, nothing was asked:" in result["msg"]
    assert fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}') == 0


def test_check_mode_and_valid_judge_the_file_and_ask_nothing(run_module, start):
    fake = start()
    known = recorded_of({})
    checked = run_module("vllm_golden", args(fake, recorded=known), check=True)
    assert checked["skipped"] and checked["msg"] == "2 golden prompts are valid, nothing was asked"
    valid = run_module("vllm_golden", {"prompts": PROMPTS, "recorded": known, "state": "valid"})
    assert not valid.failed and not valid["skipped"] and not valid["changed"]
    for check in (False, True):
        wrong = run_module("vllm_golden", {"prompts": PROMPTS, "state": "valid"}, check=check)
        assert wrong.failed and "prompt chat: expect.similarity: no answer of it is recorded" in wrong["msg"]
    assert fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}') == 0


def test_a_replica_must_be_named_to_be_asked(run_module):
    result = run_module("vllm_golden", {"prompts": PROMPTS})
    assert result.failed and "missing" in result["msg"] and "url" in result["msg"] and SECRET not in result["msg"]


def test_a_replica_that_is_not_there_is_asked_once(run_module):
    url = f"http://127.0.0.1:{free_port()}"
    many = [{**TEXT, "name": f"p{number}"} for number in range(40)]
    result = run_module("vllm_golden", {"url": url, "model": "m", "prompts": many, "parallel": 1})
    assert result.failed and result["passed"] == 0
    assert f"p0: answer: expected a whole answer, found POST {url}/v1/completions: connection refused" in result["msg"]
    assert result["msg"].endswith("... and 30 failures more")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"api_key": "another-key-0123456789"}, "does not accept the key in api_key"),
        ({"model": "other"}, "answered 404: The model `other` does not exist."),
    ],
)
def test_a_wrong_key_or_model_is_told(run_module, start, change, words):
    result = run_module("vllm_golden", args(start(), prompts=[TEXT], **change))
    assert result.failed and words in result["msg"]


def test_all_of_it_ends_in_time(run_module, start):
    fake = start()
    fake.fault("freeze_engine")
    many = [{**TEXT, "name": f"p{number}"} for number in range(20)]
    began = time.monotonic()
    result = run_module("vllm_golden", args(fake, prompts=many, parallel=2, timeout=1))
    assert result.failed and result["passed"] == 0 and time.monotonic() - began < 3
    assert "not asked, the time limit of 1 s is over" in result["failures"][-1]["found"]


def test_no_more_prompts_are_asked_at_a_time_than_allowed(run_module, start):
    fake = start({"FAKE_VLLM_TTFT_MS": "100"}, **{"max-num-seqs": 2, "max-num-queued-reqs": 2})
    many = [{**TEXT, "name": f"p{number}"} for number in range(6)]
    assert not run_module("vllm_golden", args(fake, prompts=many, parallel=2)).failed
    assert run_module("vllm_golden", args(fake, prompts=many, parallel=6)).failed, "the queue of the fake is short"
