"""What agents say about a replica: when its host may restart it, and every word against it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.config import Own
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.permits import Refused, permit_for

OWN = Own("gpu1/r0", "r0", "vllm@r0.service", "chat", "http://192.0.2.21:8000")
INCIDENT = "20261125T061530Z-gpu1-r0-3f2a"


def permit(**changes: Any) -> dict[str, Any]:
    given = {"replica": "gpu1/r0", "incident": INCIDENT, "pool": "chat", "reason": "wedged for 61 s", "issued": 1.0}
    return {**given, "expires_in": 880.0, **changes}


def answer(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"synced": True, "admin": {}, "leases": {}, "permits": [], "wedged": {"gpu1/r0": 66.0}}
    return {**given, **changes}


def test_a_permit_counts_when_all_agree() -> None:
    found = permit_for(OWN, {"lb1": answer(permits=[permit()]), "lb2": answer(wedged={"gpu1/r0": 64.0})}, set())
    assert found is not None
    assert (found.incident, found.agents, found.wedged_seconds) == (INCIDENT, ("lb1", "lb2"), 64.0)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"lb1": answer()},
        {"lb1": answer(permits=[permit(replica="gpu2/r0")])},
        {"lb1": answer(permits=[permit(expires_in=0)])},
        {"lb1": answer(permits=[permit(expires_in=-3)])},
        {"lb1": answer(permits=[permit(expires_in="900")])},
        {"lb1": answer(permits=[permit(expires_in=float("nan"))])},
        {"lb1": answer(permits=[permit(incident="../../etc")])},
        {"lb1": answer(permits=[permit(incident=INCIDENT + "/..")])},
        {"lb1": answer(permits=[permit(incident=INCIDENT + "\n")])},
        {"lb1": answer(permits=[permit(incident=["a"])])},
        {"lb1": answer(permits=[None, 7, "x", []])},
        {"lb1": answer(permits={"gpu1/r0": permit()})},
    ],
)
def test_what_is_no_permit_of_this_replica(answers: dict[str, Any]) -> None:
    assert permit_for(OWN, answers, set()) is None


def test_an_incident_is_handled_once() -> None:
    assert permit_for(OWN, {"lb1": answer(permits=[permit()])}, {INCIDENT}) is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (answer(admin={"gpu1/r0": {"state": "drained"}}), "lb2: the replica is drained"),
        (answer(leases={"chat": {"holder": "rollout"}}), "lb2: pool chat is under a rollout lease"),
        (answer(wedged={}), "lb2: it does not see the replica wedged"),
        (answer(wedged={"gpu1/r0": float("nan")}), "lb2: it does not see the replica wedged"),
        (answer(wedged={"gpu1/r0": "long"}), "lb2: its answer is not understood"),
        (answer(wedged=[]), "lb2: its answer is not understood"),
        (answer(admin=None), "lb2: its answer is not understood"),
        (answer(admin={"gpu1/r0": None}), "lb2: its answer is not understood"),
        (answer(leases=3), "lb2: its answer is not understood"),
        ({"api": 1}, "lb2: its answer is not understood"),
    ],
)
def test_one_agent_that_objects_is_enough(other: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        permit_for(OWN, {"lb1": answer(permits=[permit()]), "lb2": other}, set())
    assert refused.value.incident == INCIDENT


def test_a_lease_of_the_pool_that_the_permit_names_counts_too() -> None:
    answers = {"lb1": answer(permits=[permit(pool="renamed")], leases={"renamed": {}})}
    with pytest.raises(Refused, match="pool renamed"):
        permit_for(OWN, answers, set())


def test_an_agent_that_has_just_started_may_object_but_need_not_agree() -> None:
    young = answer(synced=False, wedged={})
    answers = {"lb1": answer(permits=[permit()]), "lb2": young}
    assert permit_for(OWN, answers, set()) is not None
    young["admin"] = {"gpu1/r0": {"state": "drained"}}
    with pytest.raises(Refused, match="drained"):
        permit_for(OWN, answers, set())
    with pytest.raises(Refused, match="knows yet"):
        permit_for(OWN, {"lb1": answer(permits=[permit()], synced=False)}, set())


def test_a_replica_that_was_put_back_is_not_drained() -> None:
    answers = {"lb1": answer(permits=[permit()], admin={"gpu1/r0": {"state": "active", "generation": 4}})}
    assert permit_for(OWN, answers, set()) is not None
