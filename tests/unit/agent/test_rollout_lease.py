"""rollout_lease against an agent on a real socket."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import AgentError, Control
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.lease import LeaseError, NotHeld, Wish, hold, release

from tests.fakes.agent import Running

Run = Callable[..., Any]
OWN, OTHER, DEAD = "rollout-own", "rollout-other", "rollout-dead"


@pytest.fixture
def lease(agent: Running, run_module: Run) -> Run:
    def run(*pools: str, check: bool = False, **more: Any) -> Any:
        args = {"pools": list(pools), "holder": OWN, "socket": str(agent.path), **more}
        return run_module("rollout_lease", args, check=check)

    return run


def holders(agent: Running) -> dict[str, str]:
    return {pool: lease["holder"] for pool, lease in agent.store.leases().items()}


def test_take_prolong_and_give_back_each_in_check_mode_first(agent: Running, lease: Run) -> None:
    foreseen = lease("chat", "short", check=True)
    assert holders(agent) == {}
    taken = lease("chat", "short")
    assert holders(agent) == {"chat": OWN, "short": OWN}
    for result in (foreseen, taken):
        assert result["changed"] and result["before"] == {"chat": None, "short": None}
        assert result["diff"] == {"before": "chat: nobody\nshort: nobody\n", "after": f"chat: {OWN}\nshort: {OWN}\n"}
        assert {one["holder"] for one in result["leases"].values()} == {OWN}
        assert all(118 < one["expires_in"] <= 120 for one in result["leases"].values())

    for again in (lease("chat", "short", seconds=300, check=True), lease("chat", "chat", seconds=300)):
        assert not again["changed"] and again["before"]["chat"]["holder"] == OWN
        assert 298 < again["leases"]["chat"]["expires_in"] <= 300
    assert agent.store.leases()["chat"]["expires_in"] > 298
    assert agent.store.leases()["short"]["expires_in"] <= 120

    foreseen = lease("chat", "short", state="released", check=True)
    assert holders(agent) == {"chat": OWN, "short": OWN}
    given_back = lease("chat", "short", state="released")
    assert holders(agent) == {}
    for result in (foreseen, given_back):
        assert result["changed"] and result["leases"] == {"chat": None, "short": None}
    for again in (lease("chat", state="released", check=True), lease("chat", state="released")):
        assert not again["changed"] and again["notes"] == []


@pytest.mark.parametrize("check", [True, False])
def test_all_or_none_when_another_holds_one(agent: Running, lease: Run, check: bool) -> None:
    agent.store.take_lease("short", OTHER, 57)
    result = lease("chat", "short", check=check)
    assert result.failed and not result["changed"]
    assert f"pool short is leased by {OTHER} for 57 s more" in result["msg"]
    assert "wait until that run has ended (an unused lease ends by itself)" in result["msg"]
    assert "name it in takeover" in result["msg"] and result["msg"].endswith("Nothing was taken")
    assert holders(agent) == {"short": OTHER}
    assert result["leases"]["chat"] is None and result["leases"]["short"]["holder"] == OTHER


def test_every_pool_that_another_holds_is_named(agent: Running, lease: Run) -> None:
    agent.store.take_lease("chat", OTHER, 57)
    agent.store.take_lease("short", DEAD, 30)
    words = f"pool chat is leased by {OTHER} for 57 s more, pool short is leased by {DEAD} for 30 s more"
    assert words in lease("chat", "short")["msg"]


def test_one_that_has_ended_is_free(agent: Running, lease: Run) -> None:
    agent.store.take_lease("chat", OTHER, 0.001)
    result = lease("chat")
    assert result["changed"] and holders(agent) == {"chat": OWN}


@pytest.mark.parametrize("check", [True, False])
def test_the_dead_are_succeeded(agent: Running, lease: Run, check: bool) -> None:
    agent.store.take_lease("chat", DEAD, 100)
    agent.store.take_lease("short", OWN, 100)
    result = lease("chat", "short", takeover=[DEAD, OWN], check=check)
    assert result["changed"] and result["before"]["chat"]["holder"] == DEAD
    assert {one["holder"] for one in result["leases"].values()} == {OWN}
    done = "would be" if check else "was"
    told = f"pool chat is leased by {DEAD} for 100 s more, who is said to be dead: it {done} taken over"
    assert result["notes"] == [told]
    assert holders(agent) == {"chat": DEAD if check else OWN, "short": OWN}


def test_nobody_is_succeeded_while_another_one_lives(agent: Running, lease: Run) -> None:
    agent.store.take_lease("chat", DEAD, 100)
    agent.store.take_lease("short", OTHER, 100)
    result = lease("chat", "short", takeover=[DEAD])
    assert result.failed and OTHER in result["msg"] and DEAD not in result["msg"]
    assert holders(agent) == {"chat": DEAD, "short": OTHER}


@pytest.mark.parametrize("check", [True, False])
def test_what_another_holds_is_not_given_back(agent: Running, lease: Run, check: bool) -> None:
    agent.store.take_lease("chat", OWN, 100)
    agent.store.take_lease("short", OTHER, 100)
    result = lease("chat", "short", state="released", check=check)
    assert not result.failed and result["changed"]
    assert result["leases"]["chat"] is None and result["leases"]["short"]["holder"] == OTHER
    assert result["notes"] == [f"pool short is leased by {OTHER} for 100 s more, not by {OWN}: left alone"]
    assert holders(agent) == ({"chat": OWN, "short": OTHER} if check else {"short": OTHER})


@pytest.mark.parametrize("state", ["held", "released"])
@pytest.mark.parametrize("check", [True, False])
def test_an_unknown_pool_is_told_with_those_that_exist(agent: Running, lease: Run, check: bool, state: str) -> None:
    agent.store.take_lease("chat", OWN, 100)
    result = lease("chat", "chta", state=state, check=check)
    assert result.failed and "chta: no such pool at this balancer; there are: chat, short" in result["msg"]
    assert holders(agent) == {"chat": OWN}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"holder": " "}, "holder is empty: give the name that balancer_replica will be given as by"),
        ({"seconds": 0}, "seconds is 0: a number above 0, up to 3600, is wanted"),
        ({"seconds": 3601}, "seconds is 3601: a number above 0, up to 3600, is wanted"),
        ({"pools": []}, "pools names none: without a lease, somebody else may drain what is rolled"),
        ({"holder": "two\nlines"}, "holder must be a text of one line"),
    ],
)
def test_what_is_asked_wrongly_is_told(agent: Running, lease: Run, change: dict[str, Any], words: str) -> None:
    result = lease("chat", **change)
    assert result.failed and words in result["msg"]
    assert holders(agent) == {}


def test_no_pools_is_nothing_to_give_back(lease: Run) -> None:
    assert lease(state="released")["changed"] is False


def test_no_agent_is_a_failure_that_says_so(lease: Run, tmp_path: pathlib.Path) -> None:
    result = lease("chat", socket=str(tmp_path / "none"))
    assert result.failed and "the agent does not run" in result["msg"]


def test_the_holder_drains_and_nobody_else_does(lease: Run, agent: Running, run_module: Run) -> None:
    lease("chat")
    args = {"replicas": ["g1/r0"], "state": "drained", "socket": str(agent.path)}
    assert f"leased by {OWN}" in run_module("balancer_replica", {**args, "by": OTHER})["msg"]
    assert run_module("balancer_replica", {**args, "by": OWN})["changed"]


# --- what happens between the look and the deed


class Between(Control):
    """The real client; something happens before the lease of one pool is asked for, or with its answer."""

    def __init__(self, agent: Running, pool: str, happens: Callable[[], object], lost: str = "") -> None:
        super().__init__(str(agent.path))
        self._pool, self._happens, self._lost = pool, happens, lost

    def lease(self, pool: str, holder: str, seconds: float) -> dict[str, Any]:
        if pool == self._pool:
            self._happens()
        answer = super().lease(pool, holder, seconds)
        if self._lost and pool == self._pool:
            raise AgentError(self._lost)
        return answer

    def release(self, pool: str, holder: str) -> dict[str, Any]:
        if self._lost == "dead":
            raise AgentError("no answer")
        if pool == self._pool and not self._lost:
            self._happens()
        return super().release(pool, holder)


def test_what_was_taken_is_given_back_when_another_was_quicker(agent: Running) -> None:
    agent.store.take_lease("chat", DEAD, 100)
    quicker = Between(agent, "short", lambda: agent.store.take_lease("short", OTHER, 57))
    with pytest.raises(NotHeld) as raised:
        hold(quicker, Wish(("chat", "short"), OWN, takeover=(DEAD,)), check=False)
    assert f"pool short is leased by {OTHER} for 57 s more" in str(raised.value)
    assert str(raised.value).endswith("(an unused lease ends by itself). Given back: chat")
    assert holders(agent) == {"short": OTHER}
    told = raised.value.outcome.result()
    assert told["leases"]["chat"] is None and told["leases"]["short"]["holder"] == OTHER
    assert told["changed"] and f"leased by {DEAD}" in told["notes"][0]


def test_what_was_held_before_stays_held(agent: Running) -> None:
    agent.store.take_lease("chat", OWN, 10)
    quicker = Between(agent, "short", lambda: agent.store.take_lease("short", OTHER, 57))
    with pytest.raises(NotHeld, match="Nothing was taken"):
        hold(quicker, Wish(("chat", "short"), OWN), check=False)
    assert holders(agent) == {"chat": OWN, "short": OTHER}


def test_an_answer_that_is_lost_may_have_been_a_yes(agent: Running) -> None:
    silent = Between(agent, "short", lambda: None, lost="POST /v1/leases: no answer within 40 s")
    with pytest.raises(NotHeld, match="no answer within 40 s. Given back: chat"):
        hold(silent, Wish(("chat", "short"), OWN), check=False)
    assert holders(agent) == {}


def test_what_could_not_be_given_back_is_said(agent: Running) -> None:
    dead = Between(agent, "short", lambda: None, lost="dead")
    with pytest.raises(NotHeld, match=r"Perhaps held: chat, short \(no answer\); unused, it ends within 120 s"):
        hold(dead, Wish(("chat", "short"), OWN), check=False)
    with pytest.raises(NotHeld, match="What was not given back ends by itself within 120 s"):
        release(dead, Wish(("chat", "short"), OWN), check=False)


def test_one_that_another_took_a_moment_ago_is_left_alone(agent: Running) -> None:
    agent.store.take_lease("chat", OWN, 100)

    def ends_and_is_taken() -> None:
        agent.store.release_lease("chat", OWN)
        agent.store.take_lease("chat", OTHER, 57)

    found = release(Between(agent, "chat", ends_and_is_taken), Wish(("chat",), OWN), check=False)
    assert "leased by rollout-other" in found.notes[0] and found.notes[0].endswith(". Left alone")
    assert found.leases["chat"] is not None and found.leases["chat"]["holder"] == OTHER


def test_an_empty_holder_is_refused_without_asking_anybody() -> None:
    with pytest.raises(LeaseError, match="holder is empty"):
        Wish(("chat",), "")
