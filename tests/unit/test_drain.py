"""Draining by playbook: who must answer, and how an end is told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import drain
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

REPLICAS = [{"id": f"g{n}/r0", "pool": "chat" if n < 3 else "short"} for n in (1, 2, 3)]
ANSWERS: dict[str, Any] = {"status": {"api": 1}}
SILENT: dict[str, Any] = {"msg": "the agent does not run\nmore", "failed": False}
HOLDS, HOLDS_NOT = {"stdout": "2: eth0 inet 192.0.2.10/24"}, {"stdout": ""}
ADDRESS = "192.0.2.10"


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("g1/r0", ["g1/r0"]),
        (" g3 , g1/r0,", ["g1/r0", "g3/r0"]),
        (["chat", "g3"], ["g1/r0", "g2/r0", "g3/r0"]),
    ],
)
def test_targets_by_id_host_and_pool(words: Any, ids: list[str]) -> None:
    assert drain.targets(REPLICAS, words) == ids


@pytest.mark.parametrize("words", ["", " , ", "g1/", "g9"])
def test_a_target_that_is_none_names_what_there_is(words: str) -> None:
    with pytest.raises(
        LlmopsError, match=r"a replica \(g1/r0, g2/r0, g3/r0\); a host \(g1, g2, g3\); a pool \(chat, sh"
    ):
        drain.targets(REPLICAS, words)


def test_all_answer() -> None:
    found = drain.reached({"lb1": ANSWERS, "lb2": ANSWERS}, {}, "")
    assert found == {"hosts": ["lb1", "lb2"], "problem": "", "notes": []}


def test_a_silent_balancer_is_not_waited_for_when_another_one_that_answers_holds_the_address() -> None:
    for holds in (HOLDS_NOT, {}):
        found = drain.reached({"lb1": ANSWERS, "lb2": SILENT}, {"lb1": HOLDS, "lb2": holds}, ADDRESS)
        assert (found["hosts"], found["problem"]) == (["lb1"], "")
        assert found["notes"] == ["lb2 did not answer (the agent does not run): it takes this over when it returns"]


@pytest.mark.parametrize(
    ("holds", "address", "words"),
    [
        ({"lb1": {}, "lb2": {}}, "", "there is no virtual address (llm_balancer_virtual_address)"),
        ({"lb1": HOLDS_NOT, "lb2": HOLDS}, ADDRESS, "and lb2 holds the virtual address 192.0.2.10"),
        ({"lb1": HOLDS, "lb2": HOLDS}, ADDRESS, "and lb2 holds the virtual address 192.0.2.10"),
        ({"lb1": HOLDS_NOT, "lb2": {}}, ADDRESS, "and none of those that answer holds the virtual address 192.0.2.10"),
    ],
)
def test_a_silent_balancer_through_which_clients_may_come_stops_the_run(
    holds: dict[str, Any], address: str, words: str
) -> None:
    seen = {"lb1": ANSWERS, "lb2": SILENT}
    found = drain.reached(seen, holds, address)
    assert words in found["problem"]
    assert found["problem"].startswith("not every balancer answers (lb2: the agent does not run), ")
    assert "-e llmops_force=true" in found["problem"]
    forced = drain.reached(seen, holds, address, force=True)
    assert (forced["hosts"], forced["problem"], len(forced["notes"])) == (["lb1"], "", 1)


@pytest.mark.parametrize("seen", [{"lb1": SILENT, "lb2": {}}, {}])
def test_nobody_answers_is_a_problem_that_force_does_not_solve(seen: dict[str, Any]) -> None:
    assert "no balancer answers" in drain.reached(seen, {}, ADDRESS, force=True)["problem"]


DRAINED = {"before": {"g1/r0": "active", "g2/r0": "drained"}, "after": {"g1/r0": "drained", "g2/r0": "drained"}}
REFUSED = {"msg": "lb2: pool chat would have 0", "failed": False}


def test_what_was_changed_where() -> None:
    found = drain.outcome("drained", ["lb1"], {"lb1": DRAINED, "lb9": {}}, {})
    assert found == {"problem": "", "lines": ["lb1: g1/r0 active -> drained", "lb1: g2/r0 is drained already"]}
    assert drain.changes(DRAINED, "drained") == ["g1/r0"]
    assert drain.changes(REFUSED, "drained") == []


@pytest.mark.parametrize(
    ("undone", "end"),
    [
        ({"lb1": {"after": {}}}, ". Put back as it was at: lb1"),
        ({"lb1": {"msg": "gone"}}, ". NOT put back at lb1 (gone): g1/r0 is drained there"),
        ({}, ". NOT put back at lb1 (it could not be asked): g1/r0 is drained there"),
    ],
)
def test_a_refusal_tells_what_became_of_the_others(undone: dict[str, Any], end: str) -> None:
    found = drain.outcome("drained", ["lb1", "lb2"], {"lb1": DRAINED, "lb2": REFUSED}, undone)
    assert found["problem"] == f"lb2 refused: lb2: pool chat would have 0{end}"


def test_a_refusal_by_all_changed_nothing() -> None:
    found = drain.outcome("drained", ["lb2"], {"lb2": REFUSED}, {})
    assert found["problem"].endswith("Nothing was changed")
