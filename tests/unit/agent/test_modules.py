"""balancer_replica and balancer_info against an agent on a real socket."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.agent import Running

Run = Callable[..., Any]


@pytest.fixture
def replica(agent: Running, run_module: Callable[..., Any]) -> Run:
    def run(replicas: list[str], state: str, *, check: bool = False, **more: Any) -> Any:
        return run_module(
            "balancer_replica", {"replicas": replicas, "state": state, "socket": str(agent.path), **more}, check=check
        )

    return run


@pytest.mark.parametrize(("state", "was"), [("drained", "active"), ("active", "drained")])
def test_each_change_once_and_in_check_mode_first(agent: Running, replica: Run, state: str, was: str) -> None:
    if was == "drained":
        agent.store.set(["g1/r0"], "drained", "", "x")
    foreseen = replica(["g1/r0"], state, check=True)
    assert agent.store.intent("g1/r0").state == was
    done = replica(["g1/r0"], state)
    assert agent.store.intent("g1/r0").state == state
    for result in (foreseen, done):
        assert (result["changed"], result["before"], result["after"]) == (True, {"g1/r0": was}, {"g1/r0": state})
        assert result["diff"] == {"before": f"g1/r0: {was}\n", "after": f"g1/r0: {state}\n"}
    for again in (replica(["g1/r0"], state, check=True), replica(["g1/r0", "g1/r0"], state)):
        assert not again["changed"]
        assert again["diff"]["before"] == again["diff"]["after"]


@pytest.mark.parametrize("check", [True, False])
def test_a_person_takes_over_what_a_run_left_drained(agent: Running, replica: Run, check: bool) -> None:
    agent.store.set(["g1/r0"], "drained", "update", "rollout 20260101T000000Z-1 root@ci x.1.1")
    result = replica(["g1/r0"], "drained", by="alice", reason="RMA", check=check)
    assert (result["changed"], result["taken"]) == (True, ["g1/r0"])
    again = replica(["g1/r0"], "drained", by="rollout 20260101T000000Z-2 root@ci x.2.2", check=check)
    assert (again["changed"], again["taken"]) == (False, []), "a run does not take what is drained"
    if not check:
        assert (agent.store.intent("g1/r0").by, agent.store.intent("g1/r0").reason) == ("alice", "RMA")
        assert not replica(["g1/r0"], "drained", by="bob")["changed"]


def test_a_run_that_lives_keeps_its_drain(agent: Running, replica: Run) -> None:
    run = "rollout 20260101T000000Z-1 root@ci x.1.1"
    agent.store.take_lease("chat", run, 100)
    agent.store.set(["g1/r0"], "drained", "update", run)
    assert f"pool chat is leased by {run}" in replica(["g1/r0"], "drained", by="alice")["msg"]
    assert agent.store.intent("g1/r0").by == run


def test_who_and_why_are_kept(agent: Running, replica: Run) -> None:
    replica(["g1/r0"], "drained", reason="new kernel")
    assert (agent.store.intent("g1/r0").by, agent.store.intent("g1/r0").reason) == ("ansible", "new kernel")


@pytest.mark.parametrize("check", [True, False])
def test_a_refusal_is_foreseen_and_changes_nothing(agent: Running, replica: Run, check: bool) -> None:
    result = replica(["g1/r0", "g2/r0"], "drained", check=check)
    assert result.failed and "pool chat would have 0 of its replicas in rotation" in result["msg"]
    assert agent.store.admin() == {}
    assert replica(["g1/r0", "g2/r0"], "drained", check=check, force=True)["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_a_lease_of_somebody_else_is_not_passed(agent: Running, replica: Run, check: bool) -> None:
    agent.store.take_lease("chat", "rollout-1", 100)
    assert "pool chat is leased by rollout-1" in replica(["g1/r0"], "drained", check=check, force=True)["msg"]
    assert replica(["g1/r0"], "drained", check=check, by="rollout-1")["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_an_unknown_replica_is_told_with_those_that_exist(replica: Run, check: bool) -> None:
    result = replica(["g7/r0"], "drained", check=check)
    assert "g7/r0: no such replica at this balancer; there are: g1/r0, g2/r0, g3/r0, g4/r0" in result["msg"]


def test_wait_until_idle(agent: Running, replica: Run) -> None:
    row = agent.world["replicas"]["g1/r0"]
    row["inflight"] = 3
    threading.Timer(0.5, lambda: row.update(inflight=0)).start()
    result = replica(["g1/r0"], "drained", wait=True)
    assert (result["changed"], result["inflight"]) == (True, {"g1/r0": 0})
    assert 0.5 < result["elapsed"] < 10


def test_wait_that_runs_out_fails_and_says_what_stays(agent: Running, replica: Run) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 3
    for changed in (True, False):
        result = replica(["g1/r0"], "drained", wait=True, wait_timeout=0.1)
        assert result.failed and result["changed"] is changed
        assert "still in flight from this balancer after" in result["msg"] and "g1/r0 3" in result["msg"]
        assert "stays drained" in result["msg"]
        assert result["inflight"] == {"g1/r0": 3}
    assert not agent.store.is_active("g1/r0")


def test_check_mode_and_undrain_do_not_wait(agent: Running, replica: Run) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 3
    assert replica(["g1/r0"], "drained", wait=True, check=True)["inflight"] == {"g1/r0": 3}
    assert not replica(["g1/r0"], "active", wait=True)["changed"]


def test_no_agent_is_a_failure_that_says_so(run_module: Run, tmp_path: pathlib.Path) -> None:
    socket = str(tmp_path / "none")
    for name, more in (("balancer_replica", {"replicas": ["a/b"], "state": "active"}), ("balancer_info", {})):
        result = run_module(name, {"socket": socket, **more})
        assert result.failed and "the agent does not run" in result["msg"] and "systemctl status" in result["msg"]


def test_an_engine_that_does_not_confirm_is_a_failure(agent: Running, replica: Run) -> None:
    agent.backend.confirms = False
    assert "did not confirm the view: nothing was changed" in replica(["g1/r0"], "drained")["msg"]


def test_info_of_all_and_of_one(agent: Running, run_module: Run) -> None:
    told = run_module("balancer_info", {"socket": str(agent.path)})
    assert not told["changed"]
    assert [row["id"] for row in told["status"]["replicas"]] == ["g1/r0", "g2/r0", "g3/r0", "g4/r0"]
    one = run_module("balancer_info", {"socket": str(agent.path), "replica": "g1/r0"}, check=True)
    assert one["replica"]["numbers"] == {"ttft_p50": 0.123} and "status" not in one
    other = run_module("balancer_info", {"socket": str(agent.path), "replica": "g7/r0"})
    assert other.failed and "g7/r0 is no member: there are g1/r0" in other["msg"]
