"""``llmops.vllm.drain`` and ``undrain`` as an operator runs them, by real ansible against two small agents."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
import yaml

from . import ansible_once
from .small_fleet import Fleet, needs_namespaces

pytestmark = needs_namespaces


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    made.start("lb1", "lb2")
    yield made
    made.stop(*made.agents)


def changed(ended: ansible_once.Ended) -> int:
    return sum(int(line.split("changed=")[1].split()[0]) for line in ended.out.splitlines() if "changed=" in line)


def test_drain_and_undrain_at_every_balancer_each_in_check_mode_once_and_again(fleet: Fleet) -> None:
    target = ("-e", "llmops_target=gpu1/r0,gpu3", "-e", "llmops_reason=kernel")
    for name, after, before in (("drain", "drained", "active"), ("undrain", "active", "drained")):
        was = fleet.drained("lb1")
        foreseen = fleet.play(name, *target, "--check", "--diff")
        assert (foreseen.rc, changed(foreseen), fleet.drained("lb1")) == (0, 2, was), foreseen.out
        done = fleet.play(name, *target)
        assert (done.rc, changed(done)) == (0, 2), done.out
        for told in (foreseen, done):
            assert f"lb2: gpu3/r0 {before} -> {after}" in told.out
        assert fleet.drained("lb1") == fleet.drained("lb2") == (["gpu1/r0", "gpu3/r0"] if after == "drained" else [])
        again = fleet.play(name, *target)
        assert (again.rc, changed(again)) == (0, 0), again.out
        assert f"lb1: gpu1/r0 is {after} already" in again.out
        assert "WARNING" not in foreseen.out + done.out + again.out
    intent = fleet.agents["lb1"].store.intent("gpu1/r0")
    assert (intent.by, intent.reason) == ("alice, undrain.yml", "kernel")


def test_a_drain_waits_until_the_limit_and_stays(fleet: Fleet) -> None:
    fleet.agents["lb2"].world["replicas"]["gpu1/r0"]["inflight"] = 7
    ended = fleet.play("drain", "-e", "llmops_target=gpu1", "-e", "llmops_drain_timeout=1")
    assert ended.rc != 0
    assert "still in flight from this balancer after 1 s: gpu1/r0 7" in ended.out
    assert fleet.drained("lb1") == fleet.drained("lb2") == ["gpu1/r0"]
    unwaited = fleet.play("drain", "-e", "llmops_target=gpu1", "-e", "llmops_wait=false")
    assert unwaited.rc == 0, unwaited.out


def test_where_one_balancer_refuses_the_others_are_put_back(fleet: Fleet) -> None:
    fleet.agents["lb2"].store.set(["gpu2/r0"], "drained", "", "bob")
    ended = fleet.play("drain", "-e", "llmops_target=gpu1")
    assert ended.rc != 0
    assert "lb2 refused: pool chat would have 0 of its replicas in rotation, its minimum is 1" in ended.out
    assert "Put back as it was at: lb1" in ended.out
    assert (fleet.drained("lb1"), fleet.drained("lb2")) == ([], ["gpu2/r0"])
    forced = fleet.play("drain", "-e", "llmops_target=gpu1", "-e", "llmops_force=true")
    assert forced.rc == 0, forced.out
    assert fleet.drained("lb2") == ["gpu1/r0", "gpu2/r0"]


def test_a_dry_run_foresees_the_refusal(fleet: Fleet) -> None:
    ended = fleet.play("drain", "-e", "llmops_target=chat", "--check")
    assert ended.rc != 0
    assert "pool chat would have 0 of its replicas in rotation" in ended.out
    assert "Nothing was changed" in ended.out


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("drain", (), "no target is named: name a replica (gpu1/r0, gpu2/r0, gpu3/r0, gpu4/r0)"),
        ("drain", ("-e", "llmops_target=gpu9"), "'gpu9' is no replica, host or pool: name a replica (gpu1/r0,"),
        ("drain", ("-e", "llmops_target=gpu1", "--limit", "lb1"), "--limit leaves out lb2"),
        ("undrain", ("-e", "llmops_target=gpu1", "--limit", "gpu1"), "--limit leaves out lb1, lb2"),
    ],
)
def test_what_is_not_clear_ends_before_any_balancer_is_asked(
    fleet: Fleet, name: str, options: tuple[str, ...], words: str
) -> None:
    ended = fleet.play(name, *options)
    assert ended.rc != 0
    assert words in " ".join(ended.out.split())
    assert "(2/3)" not in ended.out
    assert fleet.drained("lb1") == []


def test_a_balancer_that_does_not_answer_stops_the_run_unless_forced(fleet: Fleet) -> None:
    fleet.stop("lb2")
    ended = fleet.play("drain", "-e", "llmops_target=gpu1")
    assert ended.rc != 0
    assert "not every balancer answers (lb2: the agent does not run" in ended.out
    assert fleet.drained("lb1") == []
    forced = fleet.play("drain", "-e", "llmops_target=gpu1", "-e", "llmops_force=true")
    assert forced.rc == 0, forced.out
    assert "lb2 did not answer (the agent does not run" in forced.out
    assert fleet.drained("lb1") == ["gpu1/r0"]


def test_a_host_that_is_gone_is_told_and_not_waited_for_when_another_holds_the_address(fleet: Fleet) -> None:
    gone = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False}
    fleet.balancers["lb2"] = gone
    fleet.variables["llm_balancer_virtual_address"] = "127.0.0.1/8"
    for name, left in (("drain", ["gpu1/r0"]), ("undrain", [])):
        ended = fleet.play(name, "-e", "llmops_target=gpu1")
        assert ended.rc == 0, ended.out
        assert "lb2 did not answer" in ended.out
        assert fleet.drained("lb1") == left
    fleet.variables["llm_balancer_virtual_address"] = "192.0.2.10/24"
    elsewhere = fleet.play("drain", "-e", "llmops_target=gpu1")
    assert elsewhere.rc != 0
    assert "none of those that answer holds the virtual address 192.0.2.10" in elsewhere.out


def test_an_agent_of_another_version_is_refused_before_the_first_drain(fleet: Fleet) -> None:
    fleet.agents["lb2"].backend.api = 2
    ended = fleet.play("drain", "-e", "llmops_target=gpu1")
    assert ended.rc != 0
    assert "lb2: the agent on this host speaks API 2, this collection 1" in ended.out
    assert fleet.drained("lb1") == []


def test_status_shows_what_each_balancer_does(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    fleet.agents["lb1"].store.set(["gpu1/r0"], "drained", "kernel", "alice")
    fleet.stop("lb2")
    ended = fleet.play("status", "-e", f"llmops_status_file={tmp_path}/status.json", "--limit", "lb1,lb2,gpu1")
    assert ended.rc == 0, ended.out
    told = yaml.safe_load((tmp_path / "status.json").read_text())
    assert told["replicas"][0]["balancers"]["lb1"]["administrative"] == "drained"
    assert [row["answers"] for row in told["balancers"]] == [True, False]
    assert "gpu1/r0: drained: kernel (alice)" in ended.out
    assert "lb2: does not answer: the agent does not run" in ended.out
