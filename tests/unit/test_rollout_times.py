"""How long a rollout will take, by the records of those before."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.record import record
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.times import duration, estimate, step_times


def entry(pool: str = "chat", outcome: str = "done", canary: bool = False, **about: Any) -> dict[str, Any]:
    interrupted = about.pop("interrupted", False)
    took = [{"name": name, "seconds": seconds} for name, seconds in about.items()]
    told = {"id": "g/r0", "pools": [pool], "outcome": outcome, "canary": canary, "interrupted": interrupted}
    return {**told, "steps": took}


def made(*entries: dict[str, Any], action: str = "update") -> dict[str, Any]:
    return record({"action": action, "pools": ["chat"]}, entries, "")


NOTHING: dict[str, Any] = {"steps": {}, "pools": {}}


@pytest.mark.parametrize(
    ("records", "steps"),
    [
        ([], {}),
        ([made()], {}),
        ([made(entry(drain=1), entry(drain=5), entry(drain=30))], {"drain": 5}),
        ([made(entry(drain=1)), made(entry(drain=9))], {"drain": 9}),  # the newest
        ([made(entry(drain=1, shadow=7)), made(entry(drain=9))], {"drain": 9, "shadow": 7}),  # of each step
        ([made(entry(drain=1)), made(entry(drain=9), action="rollback")], {"drain": 1}),  # of the action
        ([made(entry(drain=1), entry(drain=600, outcome="failed"))], {"drain": 1}),
        ([made(entry(drain=1)), made(entry(drain=600, outcome="rolled_back"))], {"drain": 1}),
        ([made(entry(drain=8), entry(drain=0, interrupted=True))], {"drain": 8}),
        ([made(entry(drain=8), entry(drain=2, start=5))], {"drain": 5, "start": 5}),
    ],
)
def test_step_times(records: list[Any], steps: dict[str, float]) -> None:
    assert step_times(records, "update")["steps"] == steps


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "x",
        {},
        {"schema": 2, "action": "update", "pools": [], "entries": []},
        {"schema": 1, "action": "update", "pools": [], "entries": {}},
        {"schema": 1, "action": "update", "pools": [], "entries": [None, {}, {"outcome": [], "steps": 1}]},
        {"schema": 1, "action": [], "pools": [], "entries": [{"outcome": "done", "steps": [{"seconds": 1}]}]},
        {"schema": 1, "action": "update", "pools": [], "entries": [{"outcome": "done", "steps": [{"name": "drain"}]}]},
    ],
)
def test_what_cannot_be_read_is_left_out(broken: Any) -> None:
    assert step_times([broken], "update") == NOTHING
    assert step_times([made(entry(drain=1)), broken], "update")["steps"] == {"drain": 1}


def test_times_are_kept_by_pool_and_apart_for_the_canary() -> None:
    found = step_times(
        [made(entry(canary=True, start=90, canary_soak=60), entry(start=70), entry(start=80), entry("short", start=9))],
        "update",
    )
    assert found == {
        "steps": {"start": 75, "canary_soak": 60},
        "pools": {
            "chat": {"canary": {"start": 90, "canary_soak": 60}, "others": {"start": 75}},
            "short": {"others": {"start": 9}},
        },
    }


TIMES = {
    "steps": {"start": 50.0},
    "pools": {
        "chat": {"canary": {"start": 100.0, "soak": 300.0}, "others": {"start": 90.0, "soak": 60.0}},
        "single": {"canary": {"start": 7.0}},
        "sure": {"others": {"start": 3.0}},
    },
}


@pytest.mark.parametrize(
    ("batches", "steps", "guessed"),
    [
        ([{"pool": "chat", "batches": [1]}], {"start": 100, "soak": 300}, []),
        ([{"pool": "chat", "batches": [1, 4, 40]}], {"start": 280, "soak": 420}, []),  # side by side in a batch
        ([{"pool": "chat", "batches": [1, 0, "2"]}], {"start": 190, "soak": 360}, []),
        ([{"pool": "single", "batches": [1, 2]}], {"start": 14}, []),
        ([{"pool": "sure", "batches": [1, 2]}], {"start": 6}, []),
        ([{"pool": "new", "batches": [1, 2]}], {"start": 100}, ["new"]),
        (
            [{"pool": "sure", "batches": [1]}, {"pool": "chat", "batches": [1]}],
            {"start": 103, "soak": 300},
            [],
        ),
        ([{"pool": "chat", "batches": []}], {}, []),
        ([], {}, []),
    ],
)
def test_estimate(batches: list[dict[str, Any]], steps: dict[str, float], guessed: list[str]) -> None:
    whole = sum(steps.values())
    found = estimate(TIMES, batches)
    assert found == {"seconds": whole, "words": duration(whole), "steps": steps, "guessed": guessed}


@pytest.mark.parametrize("times", [{}, NOTHING])
def test_nothing_measured_is_no_estimate(times: dict[str, Any]) -> None:
    assert estimate(times, [{"pool": "chat", "batches": [1]}]) == {}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (12.4, "12 s"),
        (59.7, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (7380, "2 h 3 min"),
        (None, "an unknown time"),
    ],
)
def test_duration(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
