"""The status table: what is known, what is not, and why."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _status

REPLICAS = [
    {"id": f"{host}/r0", "host": host, "pool": "chat", "profile": "baseline", "address": "192.0.2.1", "port": 8000}
    for host in ("g1", "g2", "g3")
]
ABC = {"id": "abc", "bad": "", "held": ""}
SEEN: dict[str, Any] = {
    "g1": {
        "replicas": [
            {"id": "g1/r0", "health": "ok", "reason": "", "model": "llama", "revision": "6f6073b42301", "running": 0}
            | {"waiting": 2, "kv_cache_usage": 0.256, "release": "abc", "previous": None, "pending": "def"}
            | {"releases": {"current": ABC, "pending": ABC | {"id": "def", "bad": "slow"}, "previous": None}}
        ]
    },
    "g2": {"unreachable": True, "msg": "Connection timed out"},
}


def test_a_host_that_could_not_be_asked_is_a_row_that_says_so() -> None:
    found = {row["id"]: row for row in _status.rows(REPLICAS, SEEN)}
    assert found["g2/r0"]["health"] == found["g3/r0"]["health"] == "unreachable"
    assert found["g2/r0"]["reason"] == "Connection timed out"
    assert found["g1/r0"]["pending"] == "def"


def test_a_marked_release_is_a_line_below_the_table_and_in_its_row() -> None:
    found = _status.rows(REPLICAS, SEEN)
    assert [row["marks"] for row in found] == [{"def": {"bad": "slow"}}, {}, {}]
    assert "g1/r0: release def is marked bad: slow" in _status.table(found)


def test_table_shows_zero_as_zero_and_unknown_as_a_dash() -> None:
    lines = _status.table(_status.rows(REPLICAS, SEEN))
    assert lines[1].split() == ["g1/r0", "chat", "abc", "def", "llama", "6f6073b42301", "ok", "-", "-", "0", "2", "26%"]
    assert lines[2].split() == ["g2/r0", "chat", "-", "-", "-", "-", "unreachable", "-", "-", "-", "-", "-"]
    assert "g2/r0: Connection timed out" in lines


def told(state: str = "present", problems: tuple[str, ...] = (), **replicas: dict[str, Any]) -> dict[str, Any]:
    way = {"administrative": "active", "in_rotation": True, "health": "up", "reason": "", "note": "", "inflight": 0}
    return {
        "status": {
            "agent": {"engine": "nginx_lua"},
            "balancer": {"state": state},
            "engine": {"alive": True, "confirmed": True, "reason": ""},
            "membership": {"problems": list(problems)},
            "pools": [{"name": "chat", "lease": None}],
            "replicas": [{"id": f"{host}/r0", **way, **about} for host, about in replicas.items()],
        }
    }


DRAINED = {"administrative": "drained", "in_rotation": False, "note": "kernel (alice)"}
DOWN = {"in_rotation": False, "health": "down", "reason": "connection refused"}


def shown(seen: dict[str, Any]) -> tuple[list[list[str]], list[str]]:
    lines = _status.table(_status.rows(REPLICAS, SEEN, seen), _status.balancers(seen))
    return [line.split()[-5:-3] for line in lines[1:4]], lines[4:]


def test_where_balancers_agree_the_table_has_one_word() -> None:
    both = told(g1={}, g2=DRAINED, g3=DOWN)
    cells, notes = shown({"lb1": both, "lb2": both})
    assert cells == [["no", "yes"], ["yes", "no"], ["no", "no"]]
    assert "g2/r0: drained: kernel (alice)" in notes
    assert "g3/r0: out of rotation: connection refused" in notes


def test_where_they_differ_it_names_them() -> None:
    cells, notes = shown({"lb1": told(g1=DRAINED, g2={}, g3={}), "lb2": told(g1={}, g2=DOWN, g3={})})
    assert cells == [["lb1", "lb2"], ["no", "lb1"], ["no", "yes"]]
    assert "g1/r0: drained: kernel (alice) (at lb1)" in notes
    assert "g2/r0: out of rotation: connection refused (at lb2)" in notes


def test_a_balancer_that_does_not_answer_is_a_line_below_the_table() -> None:
    cells, notes = shown({"lb1": told(g1={}), "lb2": {"msg": "the agent does not run"}, "lb3": {}})
    assert cells == [["no", "yes"], ["-", "-"], ["-", "-"]]
    assert notes[-2:] == ["lb2: does not answer: the agent does not run", "lb3: does not answer: it was not asked"]


def test_troubles_of_a_balancer_are_told() -> None:
    seen = told("away", ("site.json is no JSON",), g1={})
    seen["status"]["engine"] = {"alive": False, "confirmed": False, "reason": "connection refused"}
    assert shown({"lb1": seen})[1][-3:] == [
        "lb1: is away, by an operator",
        "lb1: its engine is dead: connection refused",
        "lb1: site.json is no JSON",
    ]


def test_rows_keep_for_programs_how_each_balancer_treats_a_replica() -> None:
    row = _status.rows(REPLICAS, SEEN, {"lb1": told(g1=DRAINED), "lb2": {}})[0]
    assert row["balancers"]["lb1"]["administrative"] == "drained"
    assert list(row["balancers"]) == ["lb1"]
    assert _status.balancers({"lb1": told()})[0] == {
        "name": "lb1",
        "answers": True,
        "state": "present",
        "engine": "nginx_lua",
        "leases": [],
        "problems": [],
    }


def test_what_an_interrupted_run_left_is_told_although_it_serves() -> None:
    facts = SEEN["g1"]["replicas"][0] | {"verified": False, "running_release": "older"}
    row = _status.rows(REPLICAS, {"g1": {"replicas": [facts]}})[0]
    assert (row["verified"], row["running_release"]) == (False, "older")
    notes = _status.table([row])
    assert "g1/r0: its process was started with release older, and abc is in force" in notes
    assert "g1/r0: release abc is in force and was never proven: the next rollout begins with it" in notes


def test_a_run_that_holds_a_pool_is_named_once() -> None:
    seen = {name: told(g1={}) for name in ("lb1", "lb2")}
    for seconds, document in zip((80.4, 119.0), seen.values()):
        document["status"]["pools"][0]["lease"] = {"holder": "rollout 1 bob@ops", "expires_in": seconds}
    assert shown(seen)[1].count("pool chat is held by rollout 1 bob@ops, for 119 s more") == 1
