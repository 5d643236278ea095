"""What the scenarios of the traffic tier read: logs of agents, rows of the load client, a status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.traffic import fleet, seen
from tests.traffic.fleet import FAKE, REAL, ROLLED, Replica

T = 1_790_000_000.0


def line(time: Any, before: str, after: str, replica: str = "gpu1/r0") -> str:
    told = {"time": time, "event": "health", "replica": replica, "before": before, "after": after, "reason": "refused"}
    return json.dumps({**told, "numbers": {}})


def row(start: float, verdict: str = "good", began: bool = False) -> dict[str, Any]:
    return {"start": start, "verdict": verdict, "began": began, "request_id": ""}


@pytest.mark.parametrize("time", [T + 1.5, "2026-09-21T14:13:21.500000+00:00", "2026-09-21T14:13:21.500Z"])
def test_times_of_the_log_are_seconds_or_iso(time: Any) -> None:
    assert seen.parse(line(time, "up", "down"))[0].time == pytest.approx(T + 1.5, abs=1e-3)


def test_other_lines_are_left_out() -> None:
    log = "\n".join(["Started.", line(T, "up", "down"), '{"event": "start", "time": 1}', "[1]", "{", '"x"'])
    assert [event.replica for event in seen.parse(log)] == ["gpu1/r0"]


@pytest.mark.parametrize(
    ("before", "after", "leaves", "returns"),
    [
        ("up", "down", True, False),
        ("degraded", "down", True, False),
        ("up", "degraded", False, False),
        ("down", "up", False, True),
        ("active", "drained", True, False),
        ("drained", "active", False, True),
        ("down", "drained", False, False),
        ("in rotation", "out of rotation", True, False),
        ("up", "down, held", False, False),
        ("down", "down, held", False, True),
    ],
)
def test_leaving_and_returning(before: str, after: str, leaves: bool, returns: bool) -> None:
    event = seen.parse(line(T, before, after))[0]
    assert (event.leaves, event.returns) == (leaves, returns)


def test_times_of_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    log = [line(T - 5, "up", "down"), line(T + 2, "up", "down"), line(T + 9, "down", "up")]
    log += [line(T + 1, "up", "down", "gpu2/r0")]
    monkeypatch.setattr(seen, "sh", lambda *_words: "\n".join(log))
    replica = Replica("gpu1", "r0")
    assert seen.out_after("lb1", replica, T) == 2
    assert seen.back_after("lb1", replica, T) == 9
    assert seen.out_after("lb1", Replica("gpu3", "r0"), T) is None
    assert {name: len(found) for name, found in seen.removals(T).items()} == {"lb1": 2, "lb2": 2}


def test_requests_are_judged_by_their_start_and_first_byte() -> None:
    rows = [row(T), row(T + 0.5, "truncated", True), row(T + 1.5, "http_502"), row(T + 2)]
    assert seen.bad(rows) == rows[1:3]
    assert seen.bad_before_first_byte(rows) == [rows[2]]
    assert seen.bad_started_after(rows, T + 1) == [rows[2]]
    assert seen.started_after(rows, T + 1) == rows[2:]


def test_failed_requests_are_traced_to_the_replicas_that_they_met(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"a": "172.30.77.21:8000", "b": "172.30.77.21:8000, 172.30.77.22:8000", "c": "172.30.77.23:8001"}
    log = "\n".join(json.dumps({"id": name, "up": up}) for name, up in entries.items())
    monkeypatch.setattr(seen, "sh", lambda *_words, **_more: log)
    rows = [{**row(T, "http_500"), "request_id": name} for name in (*entries, "unknown", "")]
    elsewhere = seen.bad_elsewhere(rows, [Replica("gpu1", "r0")])
    assert [entry["request_id"] for entry in elsewhere] == ["c", "unknown"]


def test_unhealthy_says_what_is_wrong() -> None:
    entries = [
        {"id": one.id, "administrative": "active", "health": "up", "in_rotation": True, "reason": ""}
        for one in FAKE.replicas
    ]
    told = {"replicas": entries, "engine": {"confirmed": True, "reason": ""}}
    assert fleet.unhealthy(told, FAKE) == []
    entries[0] |= {"health": "down", "in_rotation": False, "reason": "refused"}
    entries.pop()
    told["engine"] = {"confirmed": False, "reason": "no answer"}
    assert fleet.unhealthy(told, FAKE) == [
        "gpu3/r1 is missing",
        "gpu1/r0: active, down, refused",
        "engine: no answer",
    ]


def test_fleets_have_the_replicas_of_their_inventories() -> None:
    assert [one.id for one in FAKE.replicas][:3] == ["gpu1/r0", "gpu1/r1", "gpu2/r0"]
    assert FAKE.replicas[1].endpoint == "172.30.77.21:8001"
    assert [one.id for one in REAL.replicas] == ["gpu1/r0", "gpu2/r0", "gpu3/r0"]
    assert all(path.is_dir() for one in (FAKE, ROLLED, REAL) for path in one.inventories)
