"""Comparing benchmarks: what is worse, what cannot be compared and why, what is expected, and how it is shown."""

from __future__ import annotations

import copy
import json
import pathlib

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark import compare, expected
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark import report as reports
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import RECIPES, recipe
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._gpu.tiers import TIERS


def latency(p50, factor=1.5):
    return {"p50": p50, "p90": p50 * factor, "p99": p50 * factor * factor}


def record(time="2026-12-01T03:00:00Z", profile="baseline", **changes):
    """A document of a benchmark; ``figures`` and other parts can be changed one by one."""
    one = recipe(profile)
    made = {
        "schema": 1,
        **{"time": time, "pool": "chat", "target": "pool", "profile": profile, "client": "gpu9", "release": "r1"},
        **{"model": "m", "model_source": "hf://a/m", "model_revision": "f" * 40, "version": "0.32.0"},
        **{"gpu_type": "h100", "gpus": 2, "measured": ["gpu1/r0", "gpu2/r0"], "replicas": 2, "seed": 7},
        **{"recipe": one.data(), "recipe_digest": one.digest(), "doubts": [], "client_cpu_share": 0.4},
        "figures": {
            **{"completed": 1600, "failed": 0, "short": 0, "duration_seconds": 60.0},
            **{"output_throughput": 4000.0, "good_share": 0.99},
            **{"ttft_ms": latency(200.0), "tpot_ms": latency(20.0), "itl_ms": latency(20.0), "e2e_ms": latency(1e4)},
        },
    }
    for name, value in changes.items():
        if name.startswith("figures_"):
            made["figures"][name[8:]] = value
        else:
            made[name] = value
    return made


def against(now, *earlier):
    return compare.with_last(now, earlier)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "same", "nothing differs by more than what counts"),
        ({"figures_output_throughput": 3820.0}, "same", "nothing differs"),
        ({"figures_output_throughput": 3800.0}, "worse", "output_throughput 1900 against 2000"),
        ({"figures_output_throughput": 4210.0}, "better", "output_throughput 2105 against 2000"),
        ({"figures_ttft_ms": latency(219.0)}, "same", "nothing differs"),
        ({"figures_ttft_ms": {**latency(200.0), "p50": 221.0}}, "worse", "ttft_p50_ms 221 against 200"),
        ({"figures_ttft_ms": {**latency(200.0), "p90": 370.0}}, "same", "nothing differs"),
        ({"figures_ttft_ms": {**latency(200.0), "p90": 380.0}}, "worse", "ttft_p90_ms 380 against 300"),
        ({"figures_ttft_ms": {**latency(200.0), "p99": 680.0}}, "worse", "ttft_p99_ms 680 against 450"),
        ({"figures_tpot_ms": latency(17.0)}, "better", "tpot_p50_ms 17 against 20"),
        ({"figures_good_share": 0.96}, "worse", "good_share 0.96 against 0.99"),
        ({"figures_failed": 9}, "worse", "errors_percent 0.56 against 0"),
        ({"figures_short": 9}, "worse", "errors_percent 0.56 against 0"),
        ({"figures_failed": 8}, "same", "nothing differs"),
        # what is worse outweighs what is better
        ({"figures_output_throughput": 8000.0, "figures_failed": 100}, "worse", "errors_percent 5.88 against 0"),
    ],
)
def test_what_counts(changes, verdict, words):
    found = against(record("2026-12-02T03:00:00Z", **changes), record())
    assert found.verdict == verdict and words in found.reason, found


def test_a_ratio_of_little_is_nothing():
    now = record("2026-12-02T03:00:00Z", figures_ttft_ms=latency(12.0, 1), figures_tpot_ms=latency(2.0, 1))
    assert against(now, record(figures_ttft_ms=latency(6.0, 1), figures_tpot_ms=latency(1.5, 1))).verdict == "same"


def test_a_percentile_is_judged_when_ten_answers_lie_beyond_it():
    for completed, judged in (
        (19, {}),
        (20, {"p50"}),
        (99, {"p50"}),
        (100, {"p50", "p90"}),
        (1000, {"p50", "p90", "p99"}),
    ):
        slow = record("2026-12-02T03:00:00Z", figures_ttft_ms=latency(2000.0), figures_completed=completed)
        rows = against(slow, record()).rows
        worse = {row.name.split("_")[1] for row in rows if row.name.startswith("ttft") and row.result == "worse"}
        assert worse == set(judged), completed
    few = next(row for row in rows if row.name == "ttft_p99_ms")
    assert few.ratio == 10.0
    told = against(record("2026-12-02T03:00:00Z", figures_completed=3), record()).rows
    assert {row.why for row in told if row.name == "ttft_p99_ms"} == {"too few answers: 3, needed are 1000"}


def test_throughput_of_requests_that_come_at_a_rate_decides_nothing():
    now = record("2026-12-02T03:00:00Z", "streaming", figures_output_throughput=1000.0)
    found = against(now, record(profile="streaming"))
    assert found.verdict == "same"
    assert found.rows[0].why == "requests come at a rate, which decides the throughput"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe_digest": "0" * 12}, "another recipe"),
        ({"version": "0.31.0"}, "another version of vLLM, and so of the client,"),
        ({"replicas": 3}, "another number of replicas"),
        ({"target": "replica"}, "another target"),
        ({"gpu_type": "a100"}, "another type of GPU"),
        ({"model_revision": "e" * 40}, "another revision of the model"),
    ],
)
def test_what_is_another_thing_is_not_compared(changes, words):
    found = against(record("2026-12-02T03:00:00Z"), record(**changes))
    assert (found.verdict, found.reason) == ("not_comparable", words)
    assert found.other is not None and found.rows == ()


def test_the_first_run_has_nothing_to_compare_with():
    now = record()
    for earlier in ((), (record(pool="other"),), (record(profile="batch"),)):
        found = against(now, *earlier)
        assert (found.verdict, found.reason) == ("not_comparable", "it is the first run of baseline in pool chat")


def test_the_newest_of_the_same_release_is_taken_then_of_another_one():
    old, newer = record("2026-12-01T03:00:00Z"), record("2026-12-02T03:00:00Z")
    flag = record("2026-12-03T03:00:00Z", release="r2")
    now = record("2026-12-04T03:00:00Z")
    assert against(now, old, flag, newer).other == newer
    found = against(now, flag)
    assert found.other == flag and found.reason.endswith("(then release r2, now r1)")


@pytest.mark.parametrize("busy", [0, 1])
def test_figures_of_a_client_that_was_the_bottleneck_are_not_compared(busy):
    runs = [record("2026-12-02T03:00:00Z"), record()]
    runs[busy]["client_cpu_share"] = 0.95
    found = against(*runs)
    assert found.verdict == "not_comparable" and "the client was the bottleneck (run of 2026-12-0" in found.reason
    assert compare.with_expected(runs[busy], {"ttft_p50_ms": 1}).verdict == "not_comparable"


# --- what is expected ------------------------------------------------------------------------------------------------


def test_expectations_are_those_of_one_replica():
    found = compare.with_expected(record(), {"output_throughput": 2000, "ttft_p50_ms": 150})
    assert (found.verdict, found.reason) == ("worse", "ttft_p50_ms 200 against 150")
    assert [row.result for row in found.rows] == ["same", "worse"]
    assert compare.with_expected(record(), {}).reason.startswith("no figure yet")
    few = compare.with_expected(record(figures_completed=5), {"ttft_p50_ms": 150})
    assert (few.verdict, few.reason) == ("not_comparable", "too few answers: 5, needed are 20")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"basline": {}}, "llmops_benchmark_expected.basline is no profile: there are baseline, "),
        (
            {"baseline": {"speed": 3}},
            "llmops_benchmark_expected.baseline.speed is unknown: known are output_throughput",
        ),
        ({"baseline": {"good_share": "high"}}, "llmops_benchmark_expected.baseline.good_share is 'high'"),
        ({"baseline": {"ttft_p50_ms": 0}}, "give a number above 0"),
        ({"baseline": 3}, "llmops_benchmark_expected is no mapping of profiles to figures"),
        ([], "llmops_benchmark_expected is no mapping"),
    ],
)
def test_expectations_that_say_nothing_are_refused(given, words):
    with pytest.raises(LlmopsError) as refused:
        expected.expected(given, "baseline")
    assert words in str(refused.value)


def test_expected_names_are_those_of_the_figures():
    assert set(compare.flat(record())) == set(expected.NAMES)
    assert expected.expected({"baseline": {"ttft_p50_ms": "200"}}, "baseline") == {"ttft_p50_ms": 200.0}
    assert expected.expected({"baseline": {"ttft_p50_ms": "200"}}, "batch") == {}


def test_published_figures_are_for_one_model_gpu_and_recipe_alone():
    source = "hf://nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8"
    found = expected.published(source, "b200", 2, "baseline")
    assert found and found.output_throughput == 3455 and "docs.vultr.com" in found.words()
    assert expected.published(source, "b200-180gb", 2, "batch")
    for other in (("hf://a/b", "b200", 2, "batch"), (source, "h100", 2, "batch"), (source, "b200", 1, "batch")):
        assert expected.published(*other) is None
    assert expected.published(source, "", 2, "batch") is None
    assert expected.published(source, "b200", 2, "streaming") is None


def test_a_published_figure_was_made_with_the_load_of_its_recipe():
    for one in expected.PUBLISHED:
        assert one.tier in TIERS
        load = RECIPES[one.profile]
        assert (load.input_tokens, load.output_tokens, load.shared_tokens) == (2048, 512, 0)
        assert load.concurrency == {"baseline": 16, "batch": 256}[one.profile] and not load.request_rate


# --- what is kept and shown ------------------------------------------------------------------------------------------

ENTRY = {
    **{name: record()[name] for name in reports._SERVED},
    **{"release": "r1", "versions": ["0.32.0"], "env": "/e", "host": "gpu1"},
}


def told(directory: pathlib.Path, time: str, given=None, **changes):
    made = record(time, **changes)
    result = {name: made[name] for name in reports._RAN}
    about = {"time": time, "client": "gpu9", "expected": given}
    return reports.report(result, copy.deepcopy(ENTRY), about, str(directory))


def keep(directory: pathlib.Path, report) -> None:
    (directory / report["name"]).write_text(json.dumps(report["record"]))


def test_the_next_run_is_compared_with_the_one_that_was_kept(tmp_path):
    first = told(tmp_path, "2026-12-01T03:00:00Z")
    assert first["name"] == "20261201T030000Z-chat.json" and first["record"]["last"]["verdict"] == "not_comparable"
    keep(tmp_path, first)
    second = told(tmp_path, "2026-12-02T03:00:00Z", {"baseline": {"tpot_p50_ms": 15}}, figures_output_throughput=3600.0)
    assert second["record"]["last"]["verdict"] == "worse"
    assert second["record"]["last"]["with"]["time"] == "2026-12-01T03:00:00Z"
    lines = second["lines"]
    assert lines[0] == (
        "Pool chat (2 replicas, release r1, vLLM 0.32.0), recipe baseline: 1600 answers in 60 s, 0 failed, 0 broke off"
    )
    assert lines[2].split() == ["output_throughput", "1,800.0", "2,000.0", "0.90", "-", "worse"]
    assert "worse than expected" in next(line for line in lines if line.startswith("tpot_p50_ms"))
    assert "Against the last run (2026-12-01T03:00:00Z): WORSE: output_throughput 1800 against 2000" in lines
    assert "Against what is expected: WORSE: tpot_p50_ms 20 against 15" in lines
    assert "Elsewhere: no figure yet for this model, GPU and recipe" in lines


def test_doubts_are_shown_last_and_loud(tmp_path):
    assert told(tmp_path, "2026-12-01T03:00:00Z", doubts=["3 of 40 failed"])["lines"][-1] == "DOUBTFUL: 3 of 40 failed"


def test_one_replica_is_named(tmp_path):
    entry = {**ENTRY, "target": "replica", "measured": ["gpu2/r0"]}
    made = record(replicas=1)
    result = {name: made[name] for name in reports._RAN}
    about = {"time": made["time"], "client": "gpu1", "expected": {}}
    assert reports.report(result, entry, about, "")["lines"][0].startswith("Pool chat (gpu2/r0, release r1,")


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "pool": "chat"}', "{"])
def test_files_that_are_not_ours_are_left_out(tmp_path, text):
    (tmp_path / "20270101T000000Z-chat.json").write_text(text)
    assert reports.records(str(tmp_path), "chat") == []
    keep(tmp_path, told(tmp_path, "2026-12-01T03:00:00Z"))
    assert len(reports.records(str(tmp_path), "chat")) == 1
    assert reports.records(str(tmp_path), "other") == []


def test_a_pool_named_like_a_path_stays_in_the_directory(tmp_path):
    made = record()
    result = {name: made[name] for name in reports._RAN}
    about = {"time": made["time"], "client": "gpu9", "expected": {}}
    assert reports.report(result, {**ENTRY, "pool": "../x"}, about, "")["name"] == "20261201T030000Z----x.json"
