"""The comparison of a candidate with an old replica, without either: the mix, the prompts, the verdict."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gate import shadow, shadow_mix, shadow_run
from ansible_collections.llmops.vllm.plugins.module_utils._gate.completion import Answer
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow import Limits, Pair
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow_mix import Kind
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError


def answer(text="same text", ttft=0.1, itl=0.01, tokens=11, finish="length"):
    return Answer(text, finish, tokens, 50, ttft, ttft + itl * (tokens - 1))


def pairs(count=40, new=None, old=None):
    return [Pair(answer(**(new or {})), answer(**(old or {}))) for _number in range(count)]


def verdict(found, same_model=True, **limits):
    return shadow.judge(found, same_model, Limits(**limits))


def results(judged):
    return {check.name: check.result for check in judged.checks}


# --- the verdict


@pytest.mark.parametrize(
    ("new", "old", "worse"),
    [
        ({}, {}, []),
        ({"ttft": 0.21}, {}, ["ttft"]),  # more than 1.5 times, and by more than 100 ms
        ({"ttft": 0.19}, {}, []),  # the difference is too small
        ({"ttft": 1.15}, {"ttft": 1.0}, []),  # the ratio is too small
        ({"itl": 0.035}, {}, ["itl"]),
        ({"itl": 0.029}, {}, []),
        ({"ttft": 0.01, "itl": 0.001}, {}, []),  # better is not worse
        ({"finish": "stop"}, {}, ["finish_reasons"]),
        ({"text": "!!!!!!!!!"}, {}, ["common_prefix"]),
        ({"text": "same text, and then another end"}, {}, []),
    ],
)
def test_what_is_worse(new, old, worse):
    judged = verdict(pairs(new=new, old=old))
    assert [name for name, result in results(judged).items() if result == "worse"] == worse
    assert judged.verdict == ("worse" if worse else "not_worse")


def test_the_words_have_figures_and_sample_sizes():
    judged = verdict(pairs(new={"ttft": 0.5, "text": "!"}))
    assert judged.words == (
        "worse: ttft 500 ms against 100 ms (median of 40 pairs); "
        "40 of 40 greedy answers differ, common prefix 0.00 of their length in the mean"
    )


def test_few_samples_are_said_to_be_few_and_are_never_praise():
    judged = verdict(pairs(29, new={"ttft": 9.0}))
    assert judged.verdict == "not_enough_samples"
    assert judged.words.startswith("not enough samples: errors 0 of 29 against 0 of 29; ttft 9000 ms against 100 ms")
    assert judged.words.endswith("; needed are 30")
    assert verdict([]).verdict == "not_enough_samples"


def test_errors_decide_though_samples_are_few():
    found = [*pairs(9), Pair(ApiError("POST http://192.0.2.1: answered 500: dead"), answer())]
    judged = verdict(found)
    assert judged.words == "worse: errors 1 of 10 against 0 of 10 (POST http://192.0.2.1: answered 500: dead)"
    both = [Pair(ApiError("a"), ApiError("b"))] * 5 + pairs(40)
    assert results(verdict(both))["errors"] == "not_worse"


def test_answers_of_another_model_are_told_and_decide_nothing():
    judged = verdict(pairs(new={"text": "!", "finish": "stop"}), same_model=False)
    assert judged.verdict == "not_worse"
    assert results(judged)["common_prefix"] == results(judged)["finish_reasons"] == "not_compared"


def test_a_few_that_were_held_up_decide_nothing():
    found = pairs(36) + pairs(4, new={"ttft": 60.0})
    assert verdict(found).verdict == "not_worse"
    assert shadow.figures([pair.new for pair in found])["ttft_p95"] == 60.0


def test_answers_of_one_token_have_no_itl():
    judged = verdict(pairs(new={"tokens": 1}))
    assert results(judged)["itl"] == "not_enough_samples" and results(judged)["ttft"] == "not_worse"


@pytest.mark.parametrize(
    ("left", "right", "share"),
    [("", "", 1), ("abcd", "abcd", 1), ("abcd", "abxx", 0.5), ("ab", "abcd", 0.5), ("x", "y", 0), ("", "a", 0)],
)
def test_the_common_prefix(left, right, share):
    for one, other in ((left, right), (right, left)):
        assert shadow.common_prefix(one, other) == share


def test_figures_of_nobody():
    told = shadow.figures([])
    assert (told["requests"], told["errors"], told["ttft_p50"], told["itl_p95"], told["finished"]) == (
        0,
        0,
        None,
        None,
        {},
    )


# --- the mix


def line(pool="main", uri="/v1/chat/completions", status=200, done="OK", ttfb="0.010", up_rt="2.000", **more):
    lengths = {"req_len": 600 + 4 * 500, "sent": 300 + 240 * 100, **more}
    return json.dumps(
        {"pool": pool, "uri": uri, "status": status, "done": done, "ttfb": ttfb, "up_rt": up_rt, **lengths}
    )


def write(tmp_path, lines):
    path = tmp_path / "llm_access.log"
    path.write_text("".join(f"{text}\n" for text in lines))
    return str(path)


def test_lengths_are_estimated_from_the_log(tmp_path):
    streams = [line()] * 30
    whole = [line(req_len=600 + 4 * 50, sent=700 + 4 * 20, ttfb="1.990")] * 10
    found = shadow_mix.mix_of_log(write(tmp_path, streams + whole), "main", 40)
    assert found == [Kind(50, 20, 10), Kind(500, 100, 30)]


@pytest.mark.parametrize(
    "other",
    [
        line(pool="other"),
        line(uri="/v1/models"),
        line(status=502),
        line(done=""),
        line(ttfb="-"),
        "{}",
        "[]",
        "not JSON",
        "\x00",
        line(sent="x"),
    ],
)
def test_what_is_no_answered_completion_of_the_pool_is_left_out(tmp_path, other):
    assert shadow_mix.mix_of_log(write(tmp_path, [other, line()]), "main", 1) == [Kind(500, 100, 1)]


def test_a_second_try_counts_with_the_time_of_the_last(tmp_path):
    text = line(ttfb="1.000, 0.010", up_rt="1.000, 2.000")
    assert shadow_mix.mix_of_log(write(tmp_path, [text]), "main", 1) == [Kind(500, 100, 1)]


def test_only_the_end_of_a_long_log_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shadow_mix, "LOG_BYTES", 3000)
    found = shadow_mix.mix_of_log(write(tmp_path, [line(req_len=60000)] * 500 + [line()] * 20), "main", 10)
    assert {kind.prompt_tokens for kind in found} == {500}


@pytest.mark.parametrize(
    ("lines", "pool", "words"),
    [
        (
            [line()] * 29,
            "main",
            "hold 29 answered completions of pool main, needed are 30",
        ),
        ([line()] * 99, "typo", "hold 0 answered completions of pool typo"),
        (None, "main", "No such file or directory: run on a balancer"),
    ],
)
def test_a_log_that_tells_too_little_is_refused(tmp_path, lines, pool, words):
    path = str(tmp_path / "none") if lines is None else write(tmp_path, lines)
    with pytest.raises(shadow_mix.ShadowError, match=words):
        shadow_mix.mix_of_log(path, pool, 30)


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ([], "mix is empty: name lengths"),
        ([{"prompt_tokens": 0, "output_tokens": 1}], "mix 1: prompt_tokens is 0: give 1 to"),
        ([{"prompt_tokens": 1, "output_tokens": -1}], "mix 1: output_tokens is -1"),
        ([{"prompt_tokens": 1, "output_tokens": 1, "weight": 0}], "mix 1: weight is 0: give a number above 0"),
        ([{"prompt_tokens": 1, "output_tokens": 1, "weight": float("nan")}], "mix 1: weight is nan"),
    ],
)
def test_a_mix_that_is_none_is_refused(mix, words):
    with pytest.raises(shadow_mix.ShadowError, match=words):
        shadow_mix.read_mix(mix)


def test_the_mix_can_be_given_again():
    assert shadow_mix.read_mix(shadow_mix.as_data(shadow_mix.SYNTHETIC)) == list(shadow_mix.SYNTHETIC)


def test_requests_are_drawn_in_the_shares_of_the_mix():
    mix = [Kind(1, 1, 3), Kind(2, 2, 1), Kind(3, 3, 0.001)]
    drawn = shadow_mix.draw(mix, 40, 7)
    assert len(drawn) == 40 and [drawn.count(kind) for kind in mix] == [30, 10, 0]
    assert drawn == shadow_mix.draw(mix, 40, 7) != shadow_mix.draw(mix, 40, 8)
    assert [len(shadow_mix.draw(mix, count, 1)) for count in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize(
    ("kind", "longest", "limits", "lengths"),
    [
        (Kind(100, 50), 4096, (4096, 256), (100, 50)),
        (Kind(9000, 900), 100000, (4096, 256), (4096, 256)),
        (Kind(9000, 256), 1000, (4096, 256), (644, 256)),
        (Kind(9000, 900), 1000, (4096, 4096), (450, 450)),
    ],
)
def test_lengths_fit_limits_and_context(kind, longest, limits, lengths):
    fit = shadow_mix.clipped(kind, longest, *limits)
    assert (fit.prompt_tokens, fit.output_tokens) == lengths
    assert fit.prompt_tokens + fit.output_tokens <= longest


def test_prompts_have_their_length_and_their_own_beginning():
    texts = [shadow_mix.text_of(length, seed) for seed, length in enumerate([1, 5, 100, 100, 5000])]
    assert [len(text) for text in texts] == [1, 5, 100, 100, 5000]
    assert texts[2][:8] != texts[3][:8]
    assert shadow_mix.text_of(100, 2) == texts[2]


# --- limits


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (Limits, {"samples": 0}, "samples is 0, needed is 1 or more"),
        (Limits, {"ratio": 0.9}, "ratio is 0.9, needed is 1 or more"),
        (Limits, {"ttft_seconds": -1}, "ttft_seconds is -1, needed is 0 or more"),
        (Limits, {"common_prefix": 1.5}, "common_prefix is 1.5, needed is a share from 0 to 1"),
        (shadow_run.Bounds, {"parallel": 9}, "parallel is 9: give 1 to 8"),
        (shadow_run.Bounds, {"requests": 0}, "requests is 0: give 1 to 1000"),
        (shadow_run.Bounds, {"max_output_tokens": 5000}, "max_output_tokens is 5000: give 1 to 4096"),
        (shadow_run.Bounds, {"timeout": 0}, "timeout is 0: give seconds above 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(kind, values, words):
    with pytest.raises(shadow_mix.ShadowError, match=words):
        kind(**values)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("aaa", "/x"), ("aaa", "/y"), True),
        (("aaa", "/x"), ("bbb", "/x"), False),
        (("", "/x"), ("bbb", "/x"), True),
        (("", "/x"), ("", "/y"), False),
        (("", ""), ("", ""), False),
    ],
)
def test_whether_it_is_the_same_model(one, other, same):
    ours, theirs = (shadow_run.Served("m", revision, root, 4096) for revision, root in (one, other))
    assert ours.same(theirs) is theirs.same(ours) is same
