"""Permits to restart a wedged replica: who gets one, how many, and what outlives the agent."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Change
from ansible_collections.llmops.vllm.plugins.module_utils._agent.recovery import Recovery
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.permits import INCIDENT

POOLS = {"gpu1/r0": "chat", "gpu2/r0": "chat", "gpu3/r0": "chat", "gpu4/r0": "short"}
BEGAN = 1_795_587_330.0  # 2026-11-25 06:15:30 UTC


class Scene:
    """A recovery whose clocks stand still until they are moved."""

    def __init__(self, path: pathlib.Path, per_hour: int = 3) -> None:
        self.path, self.per_hour = path / "recovery.json", per_hour
        self.now, self.wall = 5000.0, BEGAN
        self.recovery = self.restart()

    def restart(self) -> Recovery:
        """A new agent on the same disk."""
        self.recovery = Recovery(60, self.per_hour, self.path, lambda: self.now, lambda: self.wall)
        return self.recovery

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def consider(self, wedged: dict[str, float] | None = None, **changes: Any) -> list[tuple[str, str]]:
        """Events and replicas."""
        return [(change.event, change.replica) for change in self.changes(wedged, **changes)]

    def changes(self, wedged: dict[str, float] | None = None, **changes: Any) -> list[Change]:
        state: dict[str, Any] = {"pools": POOLS, "drained": set(), "leased": set(), "up": set(), "arbiter": True}
        return self.recovery.consider(wedged=wedged or {}, **{**state, **changes})

    def permitted(self) -> list[str]:
        return [permit["replica"] for permit in self.recovery.permits()]


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Scene:
    return Scene(tmp_path)


def test_a_permit_names_replica_pool_reason_and_a_readable_incident(scene: Scene) -> None:
    (change,) = scene.changes({"gpu1/r0": 61.2})
    (permit,) = scene.recovery.permits()
    assert permit["incident"].startswith("20261125T061530Z-gpu1-r0-")
    assert INCIDENT.fullmatch(permit["incident"])
    assert permit == {
        "replica": "gpu1/r0",
        "incident": permit["incident"],
        "pool": "chat",
        "reason": "wedged for 61 s: it has work and generates nothing",
        "issued": BEGAN,
        "expires_in": 900.0,
    }
    assert (change.event, change.before, change.after) == ("restart_permitted", "wedged", "permitted")
    assert change.numbers["incident"] == permit["incident"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drained": {"gpu1/r0"}}, "the replica is drained: whoever drained it restarts it, or puts it back"),
        ({"leased": {"chat"}}, "pool chat is under a rollout lease"),
    ],
)
def test_a_refusal_is_told_once_until_it_changes(scene: Scene, changes: dict[str, Any], words: str) -> None:
    (change,) = scene.changes({"gpu1/r0": 70}, **changes)
    assert (change.event, change.reason) == ("restart_refused", words)
    assert scene.consider({"gpu1/r0": 71}, **changes) == []
    assert scene.permitted() == []
    assert scene.consider({"gpu1/r0": 72}) == [("restart_permitted", "gpu1/r0")]


@pytest.mark.parametrize(
    ("wedged", "changes"),
    [
        ({"gpu1/r0": 59.9}, {}),
        ({"gpu1/r0": 500}, {"arbiter": False}),
        ({"gpu9/r0": 500}, {}),
    ],
    ids=["not long enough", "another agent decides", "no member"],
)
def test_nothing_is_permitted_or_said(scene: Scene, wedged: dict[str, float], changes: dict[str, Any]) -> None:
    assert scene.consider(wedged, **changes) == []
    assert scene.permitted() == []


def test_one_of_a_pool_at_a_time_the_longest_wedged_first(scene: Scene) -> None:
    wedged = {"gpu1/r0": 61.0, "gpu2/r0": 80.0, "gpu4/r0": 62.0}
    assert scene.consider(wedged) == [
        ("restart_permitted", "gpu2/r0"), ("restart_permitted", "gpu4/r0"), ("restart_refused", "gpu1/r0"),
    ]  # fmt: skip
    # it is killed: refuses connections, loads for minutes
    del wedged["gpu2/r0"]
    scene.pass_time(200)
    assert scene.consider(wedged) == []
    assert scene.permitted() == ["gpu2/r0", "gpu4/r0"]
    assert scene.consider(wedged, up={"gpu2/r0"}) == [
        ("restart_recovered", "gpu2/r0"),
        ("restart_permitted", "gpu1/r0"),
    ]


def test_a_wedged_replica_that_the_floor_keeps_in_rotation_is_not_up(scene: Scene) -> None:
    scene.consider({"gpu1/r0": 61})
    assert scene.consider({"gpu1/r0": 62}, up={"gpu1/r0"}) == []
    assert scene.permitted() == ["gpu1/r0"]


@pytest.mark.parametrize(
    ("changes", "event"),
    [
        ({"drained": {"gpu1/r0"}}, "restart_withdrawn"),
        ({"leased": {"chat"}}, "restart_withdrawn"),
        ({"pools": {}}, "restart_withdrawn"),
        ({"up": {"gpu1/r0"}}, "restart_recovered"),
    ],
)
def test_what_ends_a_permit(scene: Scene, changes: dict[str, Any], event: str) -> None:
    scene.consider({"gpu1/r0": 61})
    scene.pass_time(40)
    assert scene.consider({}, **changes) == [(event, "gpu1/r0")]
    assert scene.permitted() == []


def test_a_permit_ends_after_a_quarter_of_an_hour_and_another_may_follow(scene: Scene) -> None:
    scene.consider({"gpu1/r0": 61})
    scene.pass_time(899)
    assert scene.consider({"gpu1/r0": 960}) == []
    scene.pass_time(1)
    assert scene.consider({"gpu1/r0": 961}) == [("restart_expired", "gpu1/r0"), ("restart_permitted", "gpu1/r0")]


def test_three_in_an_hour_also_across_a_new_agent(scene: Scene) -> None:
    for _turn in range(3):
        assert scene.consider({"gpu1/r0": 61}) == [("restart_permitted", "gpu1/r0")]
        scene.pass_time(60)
        assert scene.consider(up={"gpu1/r0"}) == [("restart_recovered", "gpu1/r0")]
    scene.restart()
    assert scene.consider({"gpu2/r0": 61}) == [("restart_refused", "gpu2/r0")]
    assert scene.consider({"gpu2/r0": 62, "gpu4/r0": 61}) == [("restart_permitted", "gpu4/r0")]
    scene.pass_time(3600 - 180)
    assert scene.consider({"gpu2/r0": 3000}) == [("restart_expired", "gpu4/r0"), ("restart_permitted", "gpu2/r0")]


def test_a_permit_outlives_the_agent_and_a_clock_that_is_set_back(scene: Scene) -> None:
    scene.consider({"gpu1/r0": 61})
    (before,) = scene.recovery.permits()
    scene.pass_time(100)
    scene.restart()
    assert scene.recovery.permits() == [{**before, "expires_in": 800.0}]
    scene.wall -= 7200
    scene.restart()
    assert scene.recovery.permits()[0]["expires_in"] == 900.0
    assert scene.consider({"gpu2/r0": 90}) == [("restart_refused", "gpu2/r0")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "incidents": []}', '{"version": 1, "incidents": [{}]}',
                                  '{"version": 1, "incidents": 5}', "[" * 100000, "\x00\xff"])  # fmt: skip
def test_a_broken_file_is_set_aside_and_told(scene: Scene, text: str) -> None:
    scene.path.write_bytes(text.encode("latin-1"))
    scene.restart()
    assert "set aside" in scene.recovery.problems[0]
    assert scene.consider({"gpu1/r0": 61}) == [("restart_permitted", "gpu1/r0")]
    assert json.loads(scene.path.read_text())["incidents"][0]["replica"] == "gpu1/r0"


def test_a_disk_that_cannot_be_written_changes_no_decision(scene: Scene) -> None:
    scene.path = scene.path.parent / "missing" / "recovery.json"
    scene.restart()
    assert scene.consider({"gpu1/r0": 61}) == [("restart_permitted", "gpu1/r0")]
    assert scene.consider({"gpu2/r0": 61}) == [("restart_refused", "gpu2/r0")]
    assert "cannot be written" in scene.recovery.problems[0]
    scene.path.parent.mkdir()
    scene.consider({"gpu2/r0": 62})
    assert scene.recovery.problems == []
    assert scene.path.exists()


def test_what_another_agent_permitted_counts_and_goes_on_without_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first, second = Scene(tmp_path / "1"), Scene(tmp_path / "2")
    first.consider({"gpu1/r0": 61})
    heard = first.recovery.permits()
    second.consider({"gpu1/r0": 61}, arbiter=False, heard=heard)
    # the first one dies, the second becomes the arbiter
    assert second.consider({"gpu1/r0": 70, "gpu2/r0": 70}) == [("restart_refused", "gpu2/r0")]
    assert [permit["incident"] for permit in second.recovery.permits()] == [heard[0]["incident"]]
    assert second.consider(up={"gpu1/r0"}) == [("restart_recovered", "gpu1/r0")]
    # what has ended here does not come back from an agent that has not noticed yet
    second.consider(arbiter=False, heard=heard)
    assert second.permitted() == []


@pytest.mark.parametrize("permit", [None, 5, [], {}, {"incident": "x"}, {"expires_in": "soon"},
                                    {"incident": 7, "replica": "gpu1/r0", "pool": "chat", "reason": "", "issued": 1,
                                     "expires_in": 10},
                                    {"incident": "x", "replica": "gpu1/r0", "pool": "chat", "reason": "",
                                     "issued": float("inf"), "expires_in": 10},
                                    {"incident": "x", "replica": "gpu1/r0", "pool": "chat", "reason": "", "issued": 1,
                                     "expires_in": 1e9}])  # fmt: skip
def test_nonsense_from_another_agent_is_no_permit(scene: Scene, permit: Any) -> None:
    assert scene.consider({}, heard=[permit]) == []
    assert scene.permitted() == []


def test_explain_sees_the_last_incident_its_end_and_where_the_record_is(scene: Scene) -> None:
    assert scene.recovery.incident_of("gpu1/r0") is None
    scene.consider({"gpu1/r0": 61})
    name = scene.recovery.permits()[0]["incident"]
    scene.pass_time(95)
    scene.consider(up={"gpu1/r0"})
    found = scene.recovery.incident_of("gpu1/r0")
    assert found is not None
    assert (found["incident"], found["state"], found["note"]) == (name, "recovered", "up again 95 s after the permit")
    assert found["record"] == f"gpu1:/var/lib/vllm-watchdog/incidents/{name}"


def test_old_incidents_are_forgotten_those_of_this_hour_never(tmp_path: pathlib.Path) -> None:
    scene = Scene(tmp_path, per_hour=1000)
    for _turn in range(80):
        scene.consider({"gpu1/r0": 61})
        scene.consider(up={"gpu1/r0"})
    assert len(json.loads(scene.path.read_text())["incidents"]) == 80
    scene.pass_time(3601)
    scene.consider({"gpu1/r0": 61})
    assert len(json.loads(scene.path.read_text())["incidents"]) == 50
