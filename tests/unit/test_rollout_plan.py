# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout: order, batches, refusals, and what an interrupted run left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.plan import below, plan

BY_ROLLOUT = "rollout 20261129T211857Z-4711 alice@ops1 9f86d081.4711.88213"


class Fleet:
    """A fleet of which every replica serves the release ``old``, and what a test changes of it."""

    def __init__(self, **pools: int) -> None:
        self.replicas: list[dict[str, Any]] = []
        for pool, members in pools.items():
            for _member in range(members):
                number = len(self.replicas) + 1
                self.replicas.append(
                    {
                        "id": f"gpu{number}/r0",
                        "name": "r0",
                        "host": f"gpu{number}",
                        "pool": pool,
                        "unit": "vllm@r0.service",
                        "address": f"192.0.2.{number}",
                        "port": 8000,
                        "gpus": [0],
                    }
                )
        self.facts = {
            one["id"]: {
                "id": one["id"],
                "health": "ok",
                "verified": True,
                "running_release": "old",
                "releases": {"current": release("old"), "pending": None, "previous": None},
            }
            for one in self.replicas
        }
        self.rows = {
            one["id"]: {
                "id": one["id"],
                "pool": one["pool"],
                "in_rotation": True,
                "administrative": "active",
                "by": "",
            }
            for one in self.replicas
        }
        self.silent: set[str] = set()

    def pending(self, *numbers: int, **extra: Any) -> Fleet:
        for number in numbers or range(1, len(self.replicas) + 1):
            self.facts[f"gpu{number}/r0"]["releases"]["pending"] = release("new", **extra)
        return self

    def switched(self, number: int, verified: bool = True) -> Fleet:
        facts = self.facts[f"gpu{number}/r0"]
        facts["releases"] = {"current": release("new"), "pending": None, "previous": release("old")}
        facts |= {"running_release": "new", "verified": verified}
        return self

    def drained(self, number: int, by: str) -> Fleet:
        self.rows[f"gpu{number}/r0"] |= {"in_rotation": False, "administrative": "drained", "by": by}
        return self

    def out(self, *numbers: int) -> Fleet:
        for number in numbers:
            self.rows[f"gpu{number}/r0"]["in_rotation"] = False
        return self

    def plan(self, action: str = "update", **options: Any) -> dict[str, Any]:
        seen = {
            one["host"]: {"replicas": [self.facts[one["id"]]]}
            if one["host"] not in self.silent
            else {"msg": "no route"}
            for one in self.replicas
        }
        told = {"status": {"replicas": list(self.rows.values())}}
        return plan(action, options, self.replicas, seen, {}, {"lb1": told, "lb2": told})


def release(ident: str, **extra: Any) -> dict[str, Any]:
    return {"id": ident, "model": "m", "model_revision": "1" * 40, "version": "0.32.0", **extra}


def batches(found: dict[str, Any]) -> list[list[str]]:
    assert found["problems"] == []
    numbers = list(dict.fromkeys(entry["batch"] for entry in found["entries"]))
    return [[entry["id"][3:-3] for entry in found["entries"] if entry["batch"] == number] for number in numbers]


def test_nothing_pending_is_nothing_to_do() -> None:
    found = Fleet(chat=4).plan()
    assert found["entries"] == []
    assert found["lines"] == ["nothing to do"]


@pytest.mark.parametrize(
    ("members", "options", "wanted"),
    [
        (3, {}, [["1"], ["2"], ["3"]]),
        (8, {}, [["1"], ["2", "3"], ["4", "5"], ["6", "7"], ["8"]]),
        (8, {"min_healthy": 4}, [["1"], ["2", "3"], ["4", "5", "6", "7"], ["8"]]),
        (8, {"min_healthy": "50%", "batches": "1,100%"}, [["1"], ["2", "3", "4", "5"], ["6", "7", "8"]]),
        (4, {"batches": [2], "min_healthy": 1}, [["1", "2"], ["3", "4"]]),
        (1, {"allow_downtime": True}, [["1"]]),
    ],
)
def test_batches_are_a_canary_then_a_quarter_then_the_rest_within_what_the_pool_can_spare(
    members: int, options: dict[str, Any], wanted: list[list[str]]
) -> None:
    found = Fleet(chat=members).pending().plan(**options)
    assert batches(found) == wanted
    assert found["serial"] == [len(batch) for batch in wanted]
    assert [entry["canary"] for entry in found["entries"]] == [
        number < len(wanted[0]) for number in range(len(found["entries"]))
    ]


def test_a_batch_is_never_of_two_pools_and_each_pool_has_its_canary() -> None:
    found = Fleet(chat=3, short=2).pending().plan()
    assert batches(found) == [["1"], ["2"], ["3"], ["4"], ["5"]]
    assert [entry["id"] for entry in found["entries"] if entry["canary"]] == ["gpu1/r0", "gpu4/r0"]
    assert found["pools"] == ["chat", "short"]


def test_a_canary_is_compared_with_the_old_release_and_the_last_one_with_those_that_were_proven() -> None:
    first, _second, last = Fleet(chat=3).pending().plan()["entries"]
    assert [one["id"] for one in first["old"]] == ["gpu2/r0", "gpu3/r0"]
    assert [one["id"] for one in last["old"]] == ["gpu1/r0", "gpu2/r0"]


@pytest.mark.parametrize("options", [{"pools": ["short"]}, {"replicas": "gpu4,gpu5/r0"}])
def test_only_what_is_named_is_touched(options: dict[str, Any]) -> None:
    assert batches(Fleet(chat=3, short=2).pending().plan(**options)) == [["4"], ["5"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pools": "chat,shrt"}, "llmops_rollout_pools names shrt, which is no pool: there are chat"),
        ({"replicas": "gpu9"}, "gpu9"),
        ({"batches": ["half"]}, "llmops_rollout_batches has 'half'"),
        ({"batches": ["0"]}, "llmops_rollout_batches has '0'"),
        ({"batches": ["101%"]}, "llmops_rollout_batches has '101%'"),
        ({"min_healthy": "most"}, "llmops_rollout_min_healthy has 'most'"),
        ({"min_healthy": 3}, "llmops_rollout_min_healthy is 3, which is all 3 replicas of pool chat"),
        ({"retry": "maybe"}, "llmops_rollout_retry is 'maybe': true or false is wanted"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_variable_and_its_value(options: dict[str, Any], words: str) -> None:
    found = Fleet(chat=3).pending().plan(**options)
    assert words in "; ".join(found["problems"])
    assert found["entries"] == []


def test_the_only_replica_of_a_pool_is_taken_out_only_when_downtime_is_allowed() -> None:
    problem = Fleet(chat=1).pending().plan()["problems"][0]
    assert "pool chat has one replica (gpu1/r0)" in problem
    assert "llmops_rollout_allow_downtime=true" in problem


def test_a_pool_that_has_lost_too_many_is_refused_with_their_names() -> None:
    fleet = Fleet(chat=4).pending().out(3)
    fleet.silent = {"gpu4"}
    problem = fleet.out(4).plan()["problems"][0]
    assert "pool chat has 2 of 4 replicas to serve with, and 3 must stay in rotation" in problem
    assert "gpu4/r0 (no route)" in problem


def test_an_unreachable_host_is_left_alone_while_the_pool_can_spare_one_more() -> None:
    fleet = Fleet(chat=8).pending().out(8)
    fleet.silent = {"gpu8"}
    found = fleet.plan()
    assert batches(found) == [["1"], ["2"], ["3"], ["4"], ["5"], ["6"], ["7"]]
    assert found["notes"] == ["gpu8/r0 is left alone: its host could not be asked (no route)"]


def test_what_an_operator_drained_is_left_alone() -> None:
    found = Fleet(chat=4).pending().drained(2, "bob, drain.yml").plan(min_healthy=2)
    assert batches(found) == [["1"], ["3"], ["4"]]
    assert "drained by bob, drain.yml: llmops.vllm.undrain puts it back" in found["notes"][0]


@pytest.mark.parametrize("action", ["update", "restart", "reboot"])
@pytest.mark.parametrize("name", ["gpu2", "gpu2/r0"])
def test_who_is_asked_for_by_name_is_not_left_alone_in_silence(action: str, name: str) -> None:
    fleet = Fleet(chat=4).pending().drained(2, "bob, drain.yml")
    named = ["gpu1/r0", name] if action != "reboot" else ["gpu1", "gpu2"]
    (problem,) = fleet.plan(action=action, replicas=named, min_healthy=1)["problems"]
    assert problem == (
        f"llmops_rollout_replicas names {named[1]}, and it was drained by bob, drain.yml: llmops.vllm.undrain puts it "
        "back"
    )


def test_hosts_that_a_playbook_found_are_left_alone_with_a_note() -> None:
    found = (
        Fleet(chat=4)
        .drained(2, "bob, drain.yml")
        .plan(action="reboot", replicas=["gpu1", "gpu2"], min_healthy=1, derived=True)
    )
    assert (found["problems"], [entry["id"] for entry in found["entries"]]) == ([], ["gpu1/*"])
    assert "drained by bob" in found["notes"][0]


def test_nobody_is_left_alone_before_hosts_are_asked() -> None:
    assert plan("restart", {"replicas": ["gpu1/r0"]}, Fleet(chat=4).replicas, {}, {}, {})["problems"] == []


# --- what an interrupted run left --------------------------------------------------------------------------------


def test_what_a_run_left_drained_comes_first_and_goes_on_to_the_new_release_as_the_canary() -> None:
    found = Fleet(chat=3).pending().drained(2, BY_ROLLOUT).plan()
    assert batches(found) == [["2"], ["1"], ["3"]]
    first = found["entries"][0]
    assert (first["interrupted"], first["canary"], first["members"][0]["switch"]) == (True, True, True)


def test_what_was_switched_and_not_proven_is_proven_before_others_follow() -> None:
    found = Fleet(chat=3).pending(2, 3).switched(1, verified=False).drained(1, BY_ROLLOUT).plan()
    assert batches(found) == [["1"], ["2"], ["3"]]
    first = found["entries"][0]
    assert first["canary"]
    member = first["members"][0]
    assert (member["switch"], member["restart"], member["target"]["release"]) == (False, False, "new")
    # when it fails now, it goes back
    assert (member["unproven"], member["back"]["release"]) == (True, "old")
    assert not found["entries"][1]["members"][0]["unproven"]
    assert [one["id"] for one in first["old"]] == ["gpu2/r0", "gpu3/r0"]


def test_what_was_left_stopped_is_started() -> None:
    fleet = Fleet(chat=3).pending(2, 3).switched(1, verified=False).drained(1, BY_ROLLOUT)
    fleet.facts["gpu1/r0"] |= {"health": "down", "running_release": ""}
    assert fleet.plan()["entries"][0]["members"][0]["restart"]


def test_a_process_that_was_started_with_another_release_is_restarted() -> None:
    fleet = Fleet(chat=3)
    fleet.facts["gpu2/r0"]["running_release"] = "older"
    found = fleet.plan()
    assert batches(found) == [["2"]]
    assert found["entries"][0]["members"][0]["restart"]


def test_a_replica_that_a_run_left_drained_is_repaired_although_the_pool_can_spare_nobody() -> None:
    assert batches(Fleet(chat=3).drained(1, BY_ROLLOUT).out(2, 3).plan()) == [["1"]]


# --- marks, and going back ---------------------------------------------------------------------------------------


def test_a_bad_release_is_refused_for_the_whole_pool_until_it_is_to_be_retried() -> None:
    fleet = Fleet(chat=3, short=2).pending()
    fleet.facts["gpu2/r0"]["releases"]["pending"]["bad"] = "ready: it exited"
    found = fleet.plan()
    assert batches(found) == [["4"], ["5"]]
    assert "pool chat: gpu2/r0: update to new: it is marked bad: ready: it exited" in found["refused"][0]
    assert "-e llmops_rollout_retry=true" in found["refused"][0]
    assert batches(fleet.plan(retry="true")) == [["1"], ["2"], ["3"], ["4"], ["5"]]


def drained_by_bob(fleet: Fleet) -> Fleet:
    return fleet.drained(2, "bob, drain.yml")


def not_named(fleet: Fleet) -> Fleet:
    return fleet


@pytest.mark.parametrize(
    ("change", "options"), [(drained_by_bob, {"min_healthy": 1}), (not_named, {"replicas": ["gpu1", "gpu3"]})]
)
def test_what_failed_on_a_replica_that_takes_no_part_is_not_tried_on_another(
    change: Callable[[Fleet], Fleet], options: dict[str, Any]
) -> None:
    fleet = change(Fleet(chat=3).pending())
    fleet.facts["gpu2/r0"]["releases"]["pending"]["bad"] = "ready: it exited"
    found = fleet.plan(**options)
    assert found["entries"] == []
    assert "pool chat: gpu2/r0: update to new: it is marked bad" in found["refused"][0]
    assert batches(fleet.plan(retry=True, **options)) == [["1"], ["3"]]


def test_a_mark_in_a_pool_of_which_nobody_is_meant_refuses_nobody() -> None:
    fleet = Fleet(chat=2, short=2).pending()
    fleet.facts["gpu1/r0"]["releases"]["pending"]["bad"] = "ready: it exited"
    found = fleet.plan(pools=["short"])
    assert (batches(found), found["refused"]) == ([["3"], ["4"]], [])


def test_a_release_that_is_not_whole_is_refused_also_when_it_is_to_be_retried() -> None:
    found = Fleet(chat=2).pending(problem="its weights are gone").plan(retry=True)
    assert found["entries"] == []
    assert "its weights are gone" in found["refused"][0]
    assert "retry" not in found["refused"][0]


def test_a_refused_pool_still_gets_back_what_a_run_left_drained() -> None:
    found = Fleet(chat=3).pending(held="rolled back").drained(3, BY_ROLLOUT).plan()
    assert batches(found) == [["3"]]
    assert not found["entries"][0]["members"][0]["switch"]
    assert found["refused"]


def test_rollback_takes_those_that_the_rollout_reached() -> None:
    found = Fleet(chat=3).pending(3).switched(1).switched(2).plan("rollback")
    assert batches(found) == [["1"], ["2"]]
    assert [entry["members"][0]["target"]["release"] for entry in found["entries"]] == ["old", "old"]
    assert found["entries"][0]["members"][0]["back"]["release"] == "new"
    assert not any(entry["canary"] for entry in found["entries"])


def test_rollback_of_replicas_with_a_newer_release_staged_wants_their_names() -> None:
    """A site run staged another release since: nobody can tell from it whom the last rollout reached."""
    fleet = Fleet(chat=2).switched(1).switched(2).pending()
    found = fleet.plan("rollback")
    assert found["entries"] == []
    assert "-e llmops_rollout_replicas=gpu1/r0,gpu2/r0" in found["refused"][0]
    for named in (["gpu1/r0", "gpu2/r0"], ["gpu1", "gpu2"], ["chat"]):
        assert batches(fleet.plan("rollback", replicas=named)) == [["1"], ["2"]]


def test_what_failed_on_another_replica_keeps_nobody_from_going_back() -> None:
    fleet = Fleet(chat=3).switched(2)
    fleet.facts["gpu1/r0"]["releases"]["previous"] = release("new", bad="golden: not as expected")
    assert batches(fleet.plan("rollback", replicas=["gpu2/r0"])) == [["2"]]


def test_rollback_without_a_previous_release_is_refused() -> None:
    found = Fleet(chat=2).plan("rollback")
    assert found["entries"] == []
    assert "there is none on this host" in found["refused"][0]


def test_restart_takes_everybody_and_switches_nobody() -> None:
    found = Fleet(chat=3).pending().plan("restart")
    assert batches(found) == [["1"], ["2"], ["3"]]
    assert not any(entry["members"][0]["switch"] for entry in found["entries"])
    assert all(entry["members"][0]["restart"] for entry in found["entries"])


def test_what_was_never_proven_is_nothing_to_go_back_to() -> None:
    """A run was killed while the canary had a release that nobody had proven yet; then another one was staged."""
    member = Fleet(chat=3).switched(1, verified=False).pending(1).plan()["entries"][0]["members"][0]
    assert (member["switch"], member["leaves"], member["back"]["release"]) == (True, "new", "old")
    first = Fleet(chat=3).switched(1, verified=False)
    first.facts["gpu1/r0"]["releases"] |= {"previous": None, "pending": release("newer")}
    member = first.plan()["entries"][0]["members"][0]
    assert member["back"]["release"] == "new", "where nothing else is there"


def test_the_only_replica_that_serves_is_not_repaired_without_leave() -> None:
    fleet = Fleet(chat=1).switched(1, verified=False)
    assert "llmops_rollout_allow_downtime=true" in fleet.plan()["problems"][0]
    assert batches(fleet.plan(allow_downtime=True)) == [["1"]]
    assert batches(fleet.drained(1, BY_ROLLOUT).plan()) == [["1"]], "one that is out takes nothing away"


def test_prompts_of_a_release_that_waits_are_not_asked_of_the_one_in_force() -> None:
    def prompts(fleet: Fleet, action: str) -> list[bool]:
        return [entry["members"][0]["prompts"] for entry in fleet.plan(action)["entries"]]

    assert prompts(Fleet(chat=2).pending(), "update") == [True, True]
    assert prompts(Fleet(chat=2).pending(), "restart") == [False, False]
    assert prompts(Fleet(chat=2), "restart") == [True, True]


# --- hosts -------------------------------------------------------------------------------------------------------


def two_pools_on_each_host() -> Fleet:
    fleet = Fleet(chat=3, short=3)
    for one in fleet.replicas[3:]:
        number = int(one["host"][3:]) - 3
        for facts in (fleet.facts, fleet.rows):
            facts[f"gpu{number}/r1"] = {**facts.pop(one["id"]), "id": f"gpu{number}/r1"}
        one |= {"id": f"gpu{number}/r1", "name": "r1", "host": f"gpu{number}", "unit": "vllm@r1.service"}
    return fleet


def reboot(fleet: Fleet, **options: Any) -> dict[str, Any]:
    seen = {
        host: {"replicas": [fleet.facts[one["id"]] for one in fleet.replicas if one["host"] == host]}
        for host in {one["host"] for one in fleet.replicas}
    }
    told = {"status": {"replicas": list(fleet.rows.values())}}
    return plan("reboot", options, fleet.replicas, seen, {}, {"lb1": told})


def test_reboot_takes_a_host_with_all_its_replicas_one_host_at_a_time() -> None:
    found = reboot(two_pools_on_each_host())
    assert [entry["id"] for entry in found["entries"]] == ["gpu1/*", "gpu2/*", "gpu3/*"]
    assert found["serial"] == [1, 1, 1]
    first = found["entries"][0]
    assert [member["id"] for member in first["members"]] == ["gpu1/r0", "gpu1/r1"]
    assert first["pools"] == ["chat", "short"]


def test_a_host_at_which_somebody_works_is_not_rebooted() -> None:
    fleet = two_pools_on_each_host().drained(1, "alice")
    found = reboot(fleet, min_healthy=1)
    assert [entry["host"] for entry in found["entries"]] == ["gpu2", "gpu3"]
    assert "gpu1 is not rebooted: gpu1/r0 was drained by alice, who may be at it" in found["notes"]
    named = reboot(fleet, replicas=["gpu1"], min_healthy=1)
    assert named["entries"] == [] and "gpu1 is not rebooted" in named["refused"][0]


def test_a_host_that_a_run_left_is_rebooted_first() -> None:
    found = reboot(two_pools_on_each_host().drained(3, BY_ROLLOUT))
    assert [entry["id"] for entry in found["entries"]] == ["gpu3/*", "gpu1/*", "gpu2/*"]


def test_reboot_is_refused_where_a_host_carries_more_of_a_pool_than_it_can_spare() -> None:
    fleet = two_pools_on_each_host()
    for one in fleet.replicas:
        one["pool"] = fleet.rows[one["id"]]["pool"] = "chat"
    problem = reboot(fleet, replicas=["gpu1"], min_healthy=5)["problems"][0]
    assert "gpu1: pool chat would keep 4 of 6 replicas while gpu1/r0, gpu1/r1 are away" in problem


# --- at the moment of a drain ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "words"), [([], ""), ([3], "pool chat would keep 1 of 3 replicas in rotation")])
def test_a_batch_is_not_drained_when_its_pool_has_lost_another_since_the_plan(out: list[int], words: str) -> None:
    fleet = Fleet(chat=3).pending()
    entry = fleet.plan()["entries"][0]
    status = {"replicas": list(fleet.out(*out).rows.values())}
    found = below([status], entry, {})
    assert found.startswith(words) if words else found == ""


def test_a_batch_that_somebody_drained_since_the_plan_stays_theirs() -> None:
    fleet = Fleet(chat=4).pending()
    entry = fleet.plan()["entries"][0]
    status = {"replicas": list(fleet.drained(1, "bob, drain.yml").rows.values())}
    assert below([status], entry, {}).startswith("gpu1/r0 was drained by bob, drain.yml meanwhile")
    fleet.rows["gpu1/r0"]["by"] = BY_ROLLOUT
    assert below([{"replicas": list(fleet.rows.values())}], entry, {}) == ""
