"""Rollouts as metrics: what is told, under which names, and that every reader of such texts takes them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import metrics as rollout_metrics
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.record import record

from tests import exposition

STEPS = {"drain": 20, "start": 90}


def entry(ident: str, outcome: str, pools: tuple[str, ...] = ("chat",), cut: int = 0, **steps: float) -> dict[str, Any]:
    took = [{"name": name, "seconds": seconds} for name, seconds in steps.items()]
    requests = {"seen": 100, "cut": cut}
    return {"id": ident, "pools": list(pools), "outcome": outcome, "steps": took, "requests": requests}


def made(*entries: dict[str, Any], action: str = "update", hour: int = 0, **run: Any) -> dict[str, Any]:
    began = {"started": f"1970-01-01T{hour:02}:00:00Z", "action": action, "pools": ["chat"]}
    return record({**began, **run}, entries, f"1970-01-01T{hour:02}:01:30.25+00:00")


def read(text: str) -> dict[str, float]:
    """Samples as ``name{label=value}``, the names without what they begin with."""
    found = {}
    for name, values in exposition.samples(text).items():
        assert name.startswith("llmops_rollout_")
        for labels, value in values.items():
            inside = ",".join(f"{label}={told}" for label, told in sorted(labels))
            found[f"{name[len('llmops_rollout_') :]}{{{inside}}}"] = value
    return found


def test_metrics_tell_the_last_rollout_of_a_pool() -> None:
    failed = made(
        entry("g1/r0", "done", cut=1, drain=20, start=90),
        entry("g2/r0", "rolled_back", cut=2, drain=30.5, start=600, go_back=70),
        entry("g3/r0", "failed", go_back=5),
        entry("g4/r0", "untouched"),
        entry("g5/r0", "rolled_back"),
        hour=1,
    )
    assert read(rollout_metrics.metrics([made(entry("g1/r0", "done", soak=9)), failed])) == {
        "last_start_timestamp_seconds{action=update,pool=chat}": 3600,
        "last_end_timestamp_seconds{action=update,pool=chat}": 3690.25,
        "last_duration_seconds{action=update,pool=chat}": 90.2,
        "last_result{action=update,pool=chat}": 0,
        "last_replicas{action=update,outcome=done,pool=chat}": 1,
        "last_replicas{action=update,outcome=rolled_back,pool=chat}": 2,
        "last_replicas{action=update,outcome=failed,pool=chat}": 1,
        "last_replicas{action=update,outcome=skipped,pool=chat}": 0,
        "last_replicas{action=update,outcome=untouched,pool=chat}": 1,
        "rollbacks{action=update,pool=chat}": 3,
        "step_seconds{action=update,pool=chat,step=drain}": 50.5,
        "step_seconds{action=update,pool=chat,step=start}": 690,
        "step_seconds{action=update,pool=chat,step=go_back}": 75,
        "step_longest_seconds{action=update,pool=chat,step=drain}": 30.5,
        "step_longest_seconds{action=update,pool=chat,step=start}": 600,
        "step_longest_seconds{action=update,pool=chat,step=go_back}": 70,
        "requests_seen{action=update,pool=chat}": 500,
        "requests_cut{action=update,pool=chat}": 3,
    }


@pytest.mark.parametrize(
    ("outcomes", "result"), [(["done"], 1), ([], 1), (["skipped"], 1), (["untouched"], 0), (["done", "failed"], 0)]
)
def test_result(outcomes: list[str], result: int) -> None:
    text = rollout_metrics.metrics([made(*(entry(f"g{n}/r0", outcome) for n, outcome in enumerate(outcomes)))])
    assert read(text)["last_result{action=update,pool=chat}"] == result


def test_a_rollback_takes_the_place_of_the_update_that_failed() -> None:
    """An alert on a result of 0 ends with it."""
    found = read(rollout_metrics.metrics([made(entry("g1/r0", "failed")), made(action="rollback", hour=2)]))
    assert [key for key in found if key.startswith("last_result")] == ["last_result{action=rollback,pool=chat}"]


def test_each_pool_has_its_own_and_one_can_be_asked_for() -> None:
    both = made(entry("g1", "done", ("chat", "short"), drain=5), entry("g2", "failed", ("short",)), hour=1)
    records = [made(pools=["old"]), both]
    found = read(rollout_metrics.metrics(records))
    results = {key: value for key, value in found.items() if key.startswith("last_result")}
    assert results == {
        "last_result{action=update,pool=chat}": 1,
        "last_result{action=update,pool=old}": 1,
        "last_result{action=update,pool=short}": 0,
    }
    assert found["step_seconds{action=update,pool=short,step=drain}"] == 5
    failed = {pool: found[f"last_replicas{{action=update,outcome=failed,pool={pool}}}"] for pool in ("chat", "short")}
    assert failed == {"chat": 0, "short": 1}
    short = read(rollout_metrics.metrics(records, "short"))
    assert short == {key: value for key, value in found.items() if "pool=short" in key}
    assert rollout_metrics.metrics(records, "none") == ""


def test_values_of_labels_are_escaped() -> None:
    name = 'a"b\\c\nd'
    document = made(entry("g1/r0", "done", (name,), drain=1), pools=[name])
    assert read(rollout_metrics.metrics([document]))[f"step_seconds{{action=update,pool={name},step=drain}}"] == 1


@pytest.mark.parametrize("broken", [None, "x", {}, {"schema": 1}, {"schema": 2, "pools": ["chat"], "entries": []}])
def test_what_is_no_record_is_left_out(broken: Any) -> None:
    assert rollout_metrics.metrics([broken]) == ""
    assert read(rollout_metrics.metrics([made(), broken]))["last_result{action=update,pool=chat}"] == 1


def test_of_a_record_that_is_broken_inside_only_what_is_known_is_told() -> None:
    document = {"schema": 1, "pools": ["chat"], "entries": ["x", {"pools": "chat", "steps": [{"seconds": 1}]}]}
    found = read(rollout_metrics.metrics([document]))
    assert {key.partition("{")[0] for key in found} == {"last_replicas", "rollbacks", "requests_seen", "requests_cut"}
    assert set(found.values()) == {0}


@pytest.mark.parametrize("running", [True, False])
def test_metrics_tell_whether_a_rollout_runs(running: bool) -> None:
    run = {"action": "update", "started": "2026-11-29T21:18:57Z", "pools": ["chat", 'a"b']}
    expected = {f"in_progress{{action=update,pool={pool}}}": int(running) for pool in run["pools"]}
    for pool in run["pools"] if running else ():
        expected[f"in_progress_start_timestamp_seconds{{action=update,pool={pool}}}"] = 1795987137
    assert read(rollout_metrics.progress(run, running)) == expected


def test_the_two_files_share_no_name() -> None:
    assert not set(rollout_metrics.LAST) & set(rollout_metrics.RUNNING)


GOOD = '# HELP a_seconds A.\n# TYPE a_seconds gauge\na_seconds{b="c",d="\\\\\\"\\n"} 1.5\na_seconds 1e+09\n'


def test_the_reader_takes_what_is_right() -> None:
    assert exposition.samples(GOOD) == {
        "a_seconds": {frozenset({("b", "c"), ("d", '\\"\n')}): 1.5, frozenset(): 1e9},
    }
    assert exposition.samples("") == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"1e\+09\n$", "1e+09", "does not end"),
        (r"# HELP .*\n", "", "TYPE without its HELP"),
        (r"# HELP a_seconds A.", "# HELP a_seconds", "no line"),
        (r"# HELP a_seconds", "# HELP b_seconds", "TYPE without its HELP"),
        (r"# TYPE .*\n", "", "not below its HELP and TYPE"),
        (r"gauge", "number", "no line"),
        (r"a_seconds 1e\+09", "b_seconds 1", "not below its HELP and TYPE"),
        (r"a_seconds 1e\+09", r'a_seconds{b="c",d="\\\\\\"\\n"} 2', "twice"),
        (r"a_seconds 1e\+09", "a_seconds", "no line"),
        (r"a_seconds 1e\+09", "a_seconds 1 1700000000", "no line"),
        (r"a_seconds 1e\+09", "a_seconds{} 1", "no line"),
        (r"a_seconds 1e\+09", "\n", "no line"),
        (r"a_seconds\{(.*\n)*", "", "a_seconds has no sample"),
        (r'b="c"', "b='c'", "no line"),
        (r'b="c"', 'b="c', "no line"),
        (r'b="c"', r'b="\\t"', "no line"),
        (r'b="c"', 'b="c",b="c"', "twice"),
        (r'b="c"', '1b="c"', "no line"),
        (r"a_seconds", "a_total", "_total is the end of counters"),
        (r"gauge", "counter", "_total is the end of counters"),
        (r"a_seconds", "a_ms", "not named as"),
        (r"a_seconds", "a_count", "not named as"),
        (r"a_seconds", "aSeconds", "not named as"),
        (r"\Z", "# HELP a_seconds A.\n# TYPE a_seconds gauge\na_seconds 2\n", "a second HELP"),
        (r"a_seconds\{(.*\n)*", "# HELP b B.\n# TYPE b gauge\nb 1\n", "a_seconds has no sample"),
        (r"\Z", "# HELP b B.\n# TYPE b gauge\n", "b has no sample"),
        (r"\Z", "# HELP b B.\n", "b has no sample"),
    ],
)
def test_the_reader_refuses_what_is_wrong(old: str, new: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        exposition.samples(re.sub(old, new, GOOD))
