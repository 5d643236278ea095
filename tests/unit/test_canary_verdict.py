"""The rules of the canary: what is worse, what is not, and what cannot be said."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary import Limits, Model, Side, errors, judge, notes
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_reading import CanaryError, Counts

LLAMA = Model("llama", "6f6073b42301", "/srv/models/llama/6f6")
TOKENS = 50


def side(label="new", requests=200, model=LLAMA, ttft=0.2, itl=0.02, queue=0.0, errors=0, running=0, **more):
    """A side whose requests had these means; every request has 50 tokens, unless told otherwise."""
    counts = {"ttft_sum": (ttft + queue) * requests, "ttft_count": requests, "queue_sum": queue * requests}
    counts |= {"queue_count": requests, "itl_sum": itl * requests * 49, "itl_count": requests * 49}
    counts |= {"output_sum": TOKENS * requests, "output_count": requests, "served": requests - errors}
    counts |= {"failed": errors, "length": requests, "prompt_sum": 100 * requests, "prompt_count": requests}
    counts |= more
    return Side(label, Counts(**{"output_near": counts["output_sum"], **counts}), model, running=running)


@pytest.mark.parametrize(
    ("new", "old", "verdict", "words"),
    [
        ({}, {}, "not_worse", "TTFT 200 ms against 200 ms over 200 requests at the new and 200 at the old"),
        # both must be passed, the ratio and the difference
        ({"ttft": 0.29}, {}, "not_worse", "TTFT 290 ms"),
        ({"ttft": 0.32}, {}, "worse", "worse: TTFT 320 ms against 200 ms (1.6 times, 120 ms more) over 200 requests"),
        ({"ttft": 0.15}, {"ttft": 0.05}, "not_worse", ""),
        ({"ttft": 0.16}, {"ttft": 0.05}, "worse", "3.2 times, 110 ms more"),
        ({"ttft": 1.4}, {"ttft": 1.0}, "not_worse", ""),
        ({"itl": 0.035}, {}, "not_worse", "ITL 35 ms against 20 ms"),
        ({"itl": 0.045}, {}, "worse", "worse: ITL 45 ms against 20 ms (2.2 times, 25 ms more)"),
        ({"itl": 0.1}, {"itl": 0.07}, "not_worse", ""),
        # the queue is the pool's load, not the release's speed
        ({"queue": 3.0}, {}, "not_worse", "TTFT 200 ms against 200 ms"),
        ({"ttft": 0.4, "queue": 0.0}, {"queue": 3.0}, "worse", "TTFT 400 ms against 200 ms"),
        # errors, in percentage points
        ({"errors": 1}, {}, "not_worse", "errors 1 of 200 against 0 of 200"),
        ({"errors": 2}, {}, "worse", "worse: errors 2 of 200 against 0 of 200 (1.00 % against 0.00 %)"),
        ({"errors": 12}, {"errors": 11}, "not_worse", ""),
        ({"error": 2}, {}, "worse", "errors 2 of 200"),
        ({"requests": 1000, "rejected": 4, "failed": 4}, {}, "not_worse", "errors 4 of 1004"),
        ({"rejected": 3}, {}, "worse", "errors 3 of 200"),
        # samples
        ({"requests": 100}, {"requests": 100}, "not_worse", "over 100 requests at the new and 100 at the old"),
        (
            {"requests": 99, "ttft": 9.0},
            {},
            "not_enough_traffic",
            "not enough traffic: first tokens of 99 requests at the new and 200 at the old (100 are needed); answers",
        ),
        ({}, {"requests": 30}, "not_enough_traffic", "200 requests at the new and 30 at the old"),
        ({"requests": 0}, {"requests": 0}, "not_enough_traffic", "0 requests at the new and 0 at the old"),
        # faster is not worse
        ({"ttft": 0.02, "itl": 0.002}, {"errors": 50}, "not_worse", "TTFT 20 ms against 200 ms"),
        # worse in one thing is worse, whatever cannot be told of the others
        ({"requests": 50, "failed": 60}, {}, "worse", "errors 60 of 110"),
        # lengths of the same model
        ({"output_sum": 200 * 20}, {}, "worse", "worse: answers of 20 tokens against 50 from the same model over 200"),
        ({"output_sum": 200 * 90}, {}, "worse", "answers of 90 tokens against 50"),
        ({"output_sum": 200 * 70}, {}, "not_worse", "answers of 70 tokens against 50"),
        ({"output_sum": 200 * 5}, {"output_sum": 200 * 20}, "not_worse", ""),
        # lengths between 0 and 200: 50 and 80 in the mean are chance among 30 answers, and not among 200
        ({"output_sum": 200 * 80, "output_squares": 200 * 12000}, {"output_squares": 200 * 5000}, "worse", "80 tokens"),
    ],
)
def test_verdict(new, old, verdict, words):
    found = judge(side(**new), side("old", **old), Limits())
    assert found.verdict == verdict, found
    assert words in found.words


@pytest.mark.parametrize(
    ("model", "result", "words"),
    [
        (Model("llama", "ffffffffffff", "/srv/models/llama/6f6"), "not_compared", "lengths of different models"),
        (Model("llama", "6f6073b42301", "/elsewhere"), "worse", "from the same model"),
        (Model("llama", "", "/srv/models/llama/6f6"), "worse", "from the same model"),
        (Model("llama", "", "/srv/models/llama/fff"), "not_compared", "lengths of different models"),
        (Model("llama"), "not_compared", "do not tell whether they are the same"),
        (None, "not_compared", "do not tell whether they are the same"),
    ],
)
def test_lengths_are_compared_for_the_same_model_only(model, result, words):
    new, old = side(model=model, output_sum=200 * 5000), side("old")
    found = judge(new, old, Limits())
    assert found.checks[-1].result == result
    assert found.verdict == ("worse" if result == "worse" else "not_worse")
    assert words in found.checks[-1].words
    assert any(words in note for note in notes(new, old, Limits())) == (result == "not_compared")


def test_limits_are_options():
    new, old = side(ttft=0.4, itl=0.05, errors=4), side("old")
    wide = Limits(ttft_seconds=0.3, itl_seconds=0.1, error_points=2.5)
    assert judge(new, old, wide).verdict == "not_worse"
    assert judge(new, old, Limits(ratio=3, error_points=2.5)).verdict == "not_worse"
    assert judge(new, old, Limits(samples=500)).verdict == "not_enough_traffic"


def test_probes_for_one_token_are_no_samples():
    """A hundred clients' requests are needed, and a slow first token must not drown among quick probes."""
    probes = {"one_token": 150, "ttft_count": 200, "output_count": 200, "served": 200}
    assert judge(side(**probes), side("old"), Limits()).checks[0].samples_new == 50
    assert judge(side(**probes), side("old"), Limits()).verdict == "not_enough_traffic"
    drowned = judge(side(requests=320, one_token=200, output_sum=200 + 120 * 50), side("old"), Limits())
    assert drowned.verdict == "not_enough_traffic"
    assert "120 requests among 200 probes for one token" in drowned.words
    enough = side(requests=320, one_token=120, output_sum=120 + 200 * 50)
    assert judge(enough, side("old"), Limits()).verdict == "not_worse"
    assert enough.figures()["output_tokens"] == 50


def test_errors_alone_can_be_judged_before_the_rest():
    silent = side(requests=0, failed=100)
    assert errors(silent, side("old"), Limits()).result == "worse"


@pytest.mark.parametrize(
    ("new", "old", "result"),
    [
        # of 10 and 10 answers so many fail by chance: 6 in 1 of 185 cases, 8 in 1 of 2,800 (Fisher's exact test)
        ({"requests": 10, "errors": 6}, {"requests": 10}, "not_enough_traffic"),
        ({"requests": 10, "errors": 8}, {"requests": 10}, "worse"),
        ({"requests": 10, "errors": 8}, {"requests": 10, "errors": 4}, "not_enough_traffic"),
        ({"requests": 3, "errors": 3}, {"requests": 1000}, "worse"),
        ({"requests": 1, "errors": 1}, {"requests": 1000}, "worse"),
        ({"requests": 1, "errors": 1}, {"requests": 900}, "not_enough_traffic"),
        ({"requests": 0, "failed": 99}, {"requests": 0}, "not_enough_traffic"),
        # many probes among them, which are no answers to clients
        ({"requests": 20, "one_token": 18, "errors": 9}, {"requests": 20}, "not_enough_traffic"),
        # the old ones had nothing but errors, the new ones few answers
        ({"requests": 10, "errors": 10}, {"requests": 50, "errors": 50}, "not_enough_traffic"),
    ],
)
def test_errors_of_a_few_requests_count_when_they_are_no_chance(new, old, result):
    assert errors(side(**new), side("old", **old), Limits()).result == result


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"prompt_sum": 200 * 400}, "prompts of 400 tokens against 100: their TTFT is that of different work"),
        (
            {"cache_queries": 1000, "cache_hits": 100},
            "10 % of the prompt tokens came from the prefix cache against 80 %",
        ),
        ({"refused": 50}, "50 of 250 requests were refused as the client's fault (4xx) against 0 of 200"),
        ({"length": 20, "stop": 180}, "90 % of the answers ended with stop against 0 %"),
    ],
)
def test_notes_tell_what_decides_nothing(new, words):
    new, old = side(**new), side("old", cache_queries=1000, cache_hits=800)
    assert judge(new, old, Limits()).verdict == "not_worse"
    assert any(words in note for note in notes(new, old, Limits()))
    assert list(notes(old, old, Limits())) == []


def test_figures_for_people():
    figures = side(errors=3, queue=1.0, one_token=20, refused=2, cache_queries=10, cache_hits=5).figures()
    assert (figures["requests"], figures["one_token_requests"], figures["refused"]) == (180, 20, 2)
    assert (figures["ttft"], figures["queue"], figures["itl"]) == (0.2, 1.0, 0.02)
    assert (figures["answered"], figures["errors"], figures["error_percent"]) == (180, 3, 1.667)
    assert figures["cached_percent"] == 50.0
    assert figures["finished"] == {"stop": 0, "length": 200, "abort": 0, "error": 0, "repetition": 0}
    assert side(requests=0).figures()["ttft"] is None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"samples": 0}, "samples is 0, needed is 1 or more"),
        ({"ratio": 0.5}, "ratio is 0.5, needed is 1 or more"),
        ({"error_points": -1}, "error_points is -1, needed is 0 or more"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, words):
    with pytest.raises(CanaryError, match=words):
        Limits(**limits)


def test_lengths_of_few_answers_that_differ_much_are_chance():
    """As seen: a tenth of the answers is long, and the canary's 31 had more of them than the 86 of the others."""
    new = side(requests=31, output_sum=31 * 54, output_squares=31 * 5500)
    old = side("old", requests=86, output_sum=86 * 32, output_squares=86 * 2900)
    assert judge(new, old, Limits(samples=20)).verdict == "not_worse"


@pytest.mark.parametrize(("running", "verdict"), [(4, "not_worse"), (0, "worse")])
def test_what_still_runs_is_long(running, verdict):
    """As seen: streams of 38 s, of which few had ended at the new after a minute."""
    new = side(requests=2590, output_sum=2590 * 42, output_squares=2590 * 9000, running=10 * running)
    old = side("old", requests=8910, output_sum=8910 * 73, output_squares=8910 * 90000)
    assert judge(new, old, Limits()).verdict == verdict


def test_a_wide_bucket_does_not_hide_that_all_answers_are_short():
    """As seen: all answers of 60 tokens lie in the bucket from 50 to 100, whose middle is not their mean."""
    new = side(requests=110, output_sum=110 * 30, output_near=110 * 35, output_squares=110 * 1300, running=10)
    old = side("old", requests=100, output_sum=100 * 60, output_near=100 * 75, output_squares=100 * 5833)
    assert judge(new, old, Limits()).verdict == "worse"
