"""The record of a rollout: what is kept, how it ended, what people read, and which files are read again."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.llmops.vllm.plugins.filter.rollout import FilterModule
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.reading import number, records, steps, timestamp
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.record import record
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.summary import summary
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.verdict import trimmed

RUN: dict[str, Any] = {
    "ident": "20261129T211857Z-a1b2c3",
    "action": "update",
    "who": "alice@ops1",
    "started": "2026-11-29T21:18:57Z",
    "pools": ["chat"],
    "options": {},
}
FINISHED = "2026-11-29T21:31:27Z"
TOOK = {"drain": 0.4, "wait": 20, "stop": 3, "change": 1, "start": 90, "golden": 5, "shadow": 30, "put_back": 0.6}
GOLDEN = {"ok": True, "asked": 12, "passed": 12, "failures": [], "answers": [{"name": "capital"}], "elapsed": 5.1}
SHADOW = {
    "verdict": "not_worse",
    "msg": "not worse: ...",
    "checks": [
        {"name": "ttft", "result": "not_worse", "new": 0.102, "old": 0.1, "samples_new": 60, "samples_old": 60}
        | {"words": "ttft 102 ms against 100 ms (median of 60 pairs)"},
        {"name": "common_prefix", "result": "not_compared", "new": 0.4, "old": None, "samples_new": 60}
        | {"samples_old": 60, "words": "9 of 60 greedy answers differ"},
    ],
    "new": {"requests": 60, "errors": 0},
    "old": {"requests": 60, "errors": 0},
    "mix": [{"prompt_tokens": 5}],
    "elapsed": 31.2,
}
CANARY = {
    "verdict": "worse",
    "failed": True,
    "msg": "worse: TTFT 412 ms against 105 ms",
    "checks": [
        {"name": "ttft", "result": "worse", "new": 0.412, "old": 0.105, "samples_new": 130, "samples_old": 410}
        | {"words": "TTFT 412 ms against 105 ms"}
    ],
    "new": {"requests": 130},
    "old": {"requests": 410},
    "watch": {"version": 1},
    "progress": ["10 s: ..."],
}


def entry(ident: str = "gpu1/r0", outcome: str | None = "done", **about: Any) -> dict[str, Any]:
    took = [{"name": name, "seconds": seconds} for name, seconds in TOOK.items()]
    told = {"id": ident, "host": ident.partition("/")[0], "pools": ["chat"], "batch": 1, "canary": False}
    told |= {"interrupted": False, "from": {"release": "aaa"}, "to": {"release": "bbb"}, "differences": []}
    told |= {"outcome": outcome, "reason": "", "steps": took if outcome not in ("skipped", "untouched", None) else []}
    return told | {"verdicts": {}, "requests": {"seen": 0, "cut": 0}, "drained_now": False} | about


def made(*entries: dict[str, Any], **run: Any) -> dict[str, Any]:
    document = record({**RUN, **run}, entries, FINISHED)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    return document


def test_record_of_a_replica_that_was_updated() -> None:
    served = {"release": "aaa", "model": "llama", "model_revision": "6f60", "version": "0.32.0", "path": "/etc/x"}
    verdicts = {"golden": GOLDEN, "shadow": SHADOW}
    change = [{"name": "max_num_seqs", "before": 64, "after": 128}]
    document = made(
        entry(canary=True, **{"from": served}, verdicts=verdicts, differences=change, requests={"seen": 9, "cut": 0}),
        options={"llmops_rollout_soak": 60},
    )
    assert {name: document[name] for name in ("schema", "ident", "action", "who", "started", "finished")} == {
        **{name: RUN[name] for name in ("ident", "action", "who", "started")},
        "schema": 1,
        "finished": FINISHED,
    }
    assert (document["seconds"], document["outcome"], document["pool_outcomes"]) == (750.0, "done", {"chat": "done"})
    assert document["options"] == {"llmops_rollout_soak": 60}
    (told,) = document["entries"]
    assert told["from"] == {"release": "aaa", "model": "llama", "model_revision": "6f60", "version": "0.32.0"}
    assert told["differences"] == change
    assert told["steps"][1] == {"name": "wait", "seconds": 20.0}
    assert told["seconds"] == 150.0
    assert told["overhead_seconds"] == 7.0  # drain, change, golden, put_back
    assert set(told["verdicts"]) == {"golden", "shadow"}
    assert told["requests"] == {"seen": 9, "cut": 0}


@pytest.mark.parametrize(
    ("outcomes", "pool", "whole"),
    [
        ([], "nothing", "nothing"),
        (["done", "done"], "done", "done"),
        (["done", "skipped"], "done", "done"),
        (["skipped"], "nothing", "nothing"),
        (["done", "rolled_back"], "failed", "failed"),
        (["failed", "untouched"], "failed", "failed"),
        (["done", "untouched"], "unfinished", "failed"),
        (["untouched"], "unfinished", "failed"),
    ],
)
def test_outcome(outcomes: list[str], pool: str, whole: str) -> None:
    document = made(*(entry(f"gpu{n}/r0", outcome) for n, outcome in enumerate(outcomes)))
    assert (document["pool_outcomes"], document["outcome"]) == ({"chat": pool}, whole)


def test_each_pool_has_its_own_outcome_and_a_host_counts_in_all_of_its_pools() -> None:
    document = made(entry("gpu1", pools=["chat", "short"]), entry("gpu2", "failed", pools=["short"]))
    assert document["pools"] == ["chat", "short"]
    assert document["pool_outcomes"] == {"chat": "done", "short": "failed"}


@pytest.mark.parametrize(
    ("took", "outcome", "reason"),
    [
        ([], "untouched", ""),
        ([{"name": "drain", "seconds": 1}, {"name": "stop", "seconds": 1}], "failed", "after the step stop"),
    ],
)
def test_an_entry_whose_connection_was_lost_has_no_outcome(took: list[Any], outcome: str, reason: str) -> None:
    told = made(entry(outcome=None, steps=took))["entries"][0]
    assert told["outcome"] == outcome
    assert told["reason"].endswith(reason)


def test_a_run_that_told_next_to_nothing_still_has_a_record() -> None:
    document = record({"pools": "chat", "started": "yesterday"}, [{}, {"steps": "drain", "verdicts": []}], FINISHED)
    assert (document["seconds"], document["outcome"], document["pools"]) == (None, "failed", ["chat"])
    assert summary(document)[0].startswith("Rollout  FAILED: ")


def test_texts_of_templates_are_numbers_and_truths_again() -> None:
    took = [{"name": "drain", "seconds": "1.5"}, {"name": "drain", "seconds": 2}, {"name": "stop", "seconds": "x"}]
    told = made(entry(steps=took, canary="True", drained_now="False", batch="2", requests={"seen": "7"}))["entries"][0]
    assert told["steps"] == [{"name": "drain", "seconds": 3.5}]
    assert (told["canary"], told["drained_now"], told["batch"]) == (True, False, 2)
    assert told["requests"] == {"seen": 7, "cut": 0}


@pytest.mark.parametrize(
    ("value", "found"),
    [(1, 1.0), ("2.5", 2.5), (0, 0.0), (-1, None), ("nan", None), (float("inf"), None), (10**400, None)]
    + [(value, None) for value in (None, "", [], {}, "a")],
)
def test_number(value: Any, found: float | None) -> None:
    assert number(value) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00", 60.0),
        ("1970-01-01T01:01:00.500000+01:00", 60.5),
        ("soon", None),
        (None, None),
    ],
)
def test_timestamp(text: Any, found: float | None, elsewhere: None) -> None:
    assert timestamp(text) == found


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A controller whose clock does not show UTC."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "XYZ-5")
        time.tzset()
        yield
    time.tzset()


# --- verdicts


def test_a_verdict_keeps_what_decided_and_the_figures() -> None:
    assert trimmed(SHADOW) == {
        "verdict": "not_worse",
        "reasons": ["ttft 102 ms against 100 ms (median of 60 pairs)"],
        "samples": {"new": 60, "old": 60},
        "checks": [
            {"name": "ttft", "result": "not_worse", "new": 0.102, "old": 0.1, "samples_new": 60, "samples_old": 60},
            {"name": "common_prefix", "result": "not_compared", "new": 0.4, "old": None}
            | {"samples_new": 60, "samples_old": 60},
        ],
        "notes": [],
        "seconds": 31.2,
    }


def test_what_a_gate_noted_besides_is_kept_and_shown() -> None:
    note = "3 requests were refused as 4xx: does the new release refuse what the old one took?"
    told = trimmed({**SHADOW, "notes": [note]})
    assert told is not None
    assert told["notes"] == [note]
    document = made(entry(verdicts={"canary": {**SHADOW, "notes": [note]}}))
    assert f"        {note}" in summary(document)


def test_a_verdict_of_golden_prompts_has_no_answer_in_it() -> None:
    failures = [
        {"name": f"p{n}", "expectation": "contains", "expected": "x", "found": "the secret plan"} for n in range(12)
    ]
    told = trimmed({"failed": True, "ok": False, "asked": 20, "passed": 8, "failures": failures, "msg": "the secret"})
    assert told is not None
    assert (told["verdict"], told["samples"]) == ("failed", {"new": 20, "old": 0})
    assert told["reasons"][:2] == ["8 of 20 answers as expected", "p0: contains"]
    assert (len(told["reasons"]), told["reasons"][-1]) == (12, "and 2 more")
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize(
    ("result", "verdict", "reason"),
    [
        ({"failed": True, "msg": "GET http://192.0.2.1:8000/metrics: timed out\nmore"}, "failed", "GET http://192.0.2"),
        ({"unreachable": True, "msg": "no route"}, "failed", "no route"),
        ({"failed": True}, "failed", "no reason was given"),
        ({"verdict": "worse", "msg": "worse: g1/r0 was started anew", "checks": []}, "worse", "g1/r0 was started anew"),
        ({"verdict": "not_enough_traffic", "msg": "not enough traffic: 3"}, "not_enough_traffic", "3"),
    ],
)
def test_a_verdict_without_figures_says_why(result: dict[str, Any], verdict: str, reason: str) -> None:
    told = trimmed(result)
    assert told is not None
    assert told["verdict"] == verdict
    assert told["reasons"][0].startswith(reason)
    assert len(told["reasons"]) == 1


@pytest.mark.parametrize("result", [None, {}, "skipped", {"skipped": True, "ok": True}, {"msg": "prompts are valid"}])
def test_what_judged_nothing_is_no_verdict(result: Any) -> None:
    assert trimmed(result) is None
    assert made(entry(verdicts={"golden": result}))["entries"][0]["verdicts"] == {}


# --- the summary


def test_summary_of_a_rollout_that_went_well() -> None:
    change = [{"name": "max_num_seqs", "before": 64, "after": None}]
    first = entry(canary=True, verdicts={"golden": GOLDEN, "shadow": SHADOW}, differences=change)
    second = entry("gpu2/r0", differences=change, steps=[], requests={"seen": 240, "cut": 1})
    assert summary(made(first, second)) == [
        "Rollout 20261129T211857Z-a1b2c3 done: update of chat by alice@ops1 in 12 min 30 s, "
        "2026-11-29T21:18:57Z to 2026-11-29T21:31:27Z",
        "Pool chat: done (2 done)",
        "    changed: max_num_seqs 64 -> (not set)",
        "gpu1/r0: done, canary, release aaa -> bbb, 2 min 30 s (drain 0.4 s, wait 20 s, stop 3.0 s, change 1.0 s, "
        "start 1 min 30 s, golden 5.0 s, shadow 30 s, put_back 0.6 s)",
        "    golden: passed: 12 of 12 answers as expected",
        "    shadow: not worse: ttft 102 ms against 100 ms (median of 60 pairs)",
        "gpu2/r0: done, release aaa -> bbb",
        "    requests: 240 seen, 1 cut",
    ]


def test_summary_of_a_failure_ends_with_what_to_do() -> None:
    bad = entry("gpu2/r0", "rolled_back", reason="the canary is worse\nmore", verdicts={"canary": CANARY})
    left = entry("gpu3/r0", "failed", reason="it does not start", drained_now=True, interrupted=True, to={})
    lines = summary(made(bad, left, entry("gpu4/r0", "untouched", to={"release": "aaa"})))
    assert lines[0].startswith("Rollout 20261129T211857Z-a1b2c3 FAILED: update of chat")
    assert lines[1] == "Pool chat: failed (1 rolled back, 1 failed, 1 untouched)"
    assert lines[2].startswith("gpu2/r0: ROLLED BACK, release aaa -> bbb, 2 min 30 s (")
    assert lines[3:5] == ["    why: the canary is worse", "    canary: worse: TTFT 412 ms against 105 ms"]
    assert lines[5].startswith("gpu3/r0: FAILED, interrupted, release aaa -> none, ")
    assert lines[7] == "gpu4/r0: untouched, release aaa"
    assert lines[-4:] == [
        "LEFT DRAINED, clients do not reach it: gpu3/r0",
        "    The next rollout mends it. To put it back by hand, once it answers:",
        "    ansible-playbook llmops.vllm.undrain -e llmops_target=gpu3/r0",
        "Next: mend the cause, then run: ansible-playbook llmops.vllm.rollout -e llmops_rollout_retry=true",
    ]


@pytest.mark.parametrize(
    ("action", "outcome", "options", "command"),
    [
        ("rollback", "failed", {}, "mend the cause, then run: ansible-playbook llmops.vllm.rollback"),
        ("update", "untouched", {}, "what is untouched is done by: ansible-playbook llmops.vllm.rollout"),
        (
            "update",
            "failed",
            {"llmops_rollout_pools": "chat", "llmops_rollout_retry": True, "llmops_rollout_soak": 0, "soak": 1},
            "-e llmops_rollout_pools=chat -e llmops_rollout_retry=true -e '{\"llmops_rollout_soak\": 0}'",
        ),
        (
            "restart",
            "failed",
            {"llmops_rollout_pools": ["a", "b"], "llmops_rollout_cut": False, "llmops_rollout_replicas": []}
            | {"llmops_rollout_why": "it's new"},
            'llmops.vllm.restart -e \'{"llmops_rollout_pools": ["a", "b"]}\' '
            '-e \'{"llmops_rollout_why": "it\'"\'"\'s new"}\'',
        ),
    ],
)
def test_the_next_command_asks_for_the_same_again(
    action: str, outcome: str, options: dict[str, Any], command: str
) -> None:
    assert summary(made(entry(outcome=outcome), action=action, options=options))[-1].endswith(command)


def test_summary_when_there_was_nothing_to_do() -> None:
    lines = summary(made())
    assert lines[0].startswith("Rollout 20261129T211857Z-a1b2c3 had nothing to do: update of chat by alice@ops1")
    assert lines[1:] == ["Pool chat: nothing"]


# --- files


def write(folder: pathlib.Path, ident: str, **run: Any) -> None:
    (folder / f"{ident}.json").write_text(json.dumps(made(entry(), ident=ident, **run)))


def test_records_of_a_directory_are_the_newest_of_the_pools_and_the_newest_is_the_last(tmp_path: pathlib.Path) -> None:
    for day in range(10, 34):
        write(tmp_path, f"202611{day}T000000Z-aaaaaa", pools=["chat"] if day % 2 else ["chat", "short"])
    found = [document["ident"][6:8] for document in records(str(tmp_path), [])]
    assert found == [str(day) for day in range(14, 34)]
    short = [document["ident"][6:8] for document in records(str(tmp_path), ["short", "other"])]
    assert short == [str(day) for day in range(10, 34, 2)]
    assert records(str(tmp_path), "short") == records(str(tmp_path), ["short"])
    assert records(str(tmp_path), ["other"]) == []


def test_what_is_no_record_is_left_out(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "20261110T000000Z-aaaaaa")
    good = json.loads((tmp_path / "20261110T000000Z-aaaaaa.json").read_text())
    bad = ["", "{", "[]", "null", '"text"', "[" * 100_000, json.dumps({**good, "schema": 2})]
    bad += [json.dumps({**good, name: "chat"}) for name in ("pools", "entries")]
    for number_of, text in enumerate(bad):
        (tmp_path / f"20261111T00000{number_of}Z-bbbbbb.json").write_text(text)
    (tmp_path / "20261112T000000Z-cccccc.json").write_bytes(b"\xff\xfe{}")
    (tmp_path / "20261113T000000Z-dddddd.json").mkdir()
    (tmp_path / "20261114T000000Z-eeeeee.txt").write_text(json.dumps(good))
    assert records(str(tmp_path)) == [good]


@pytest.mark.parametrize("name", ["none", ""])
def test_no_directory_holds_no_record(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write(tmp_path, "20261110T000000Z-aaaaaa")
    monkeypatch.chdir(tmp_path)
    assert records(name) == []


def test_braces_in_a_record_are_no_template(tmp_path: pathlib.Path) -> None:
    """They may come from a server's answer, and would be carried out on the controller."""
    text = "{{ 20 + 1 }}"
    document = made(entry(reason=text))
    (tmp_path / "a.json").write_text(json.dumps(document))
    found = FilterModule().filters()["rollout_records"](str(tmp_path))
    templar = Templar(DataLoader(), variables={"found": found})
    template = "{{ found[0]['entries'][0]['reason'] }}"
    try:
        from ansible.template import trust_as_template
    except ImportError:  # ansible-core before 2.19 takes any text for a template
        pass
    else:
        template = trust_as_template(template)
    assert templar.template(template) == text


def test_steps_that_cannot_be_read_are_left_out() -> None:
    assert steps({"steps": [{"name": "a", "seconds": 1}, {"seconds": 1}, {"name": "b"}, "c"]}) == {"a": 1.0}
    assert steps({"steps": {"name": "a"}}) == steps({}) == {}
