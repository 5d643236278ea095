"""``llmops.vllm.drain`` and ``undrain`` as an operator runs them, by real ansible against two small agents.

Both balancers are this machine. Their Python runs in a mount namespace of its own, in which ``/run/llm-agent`` is the
directory of that balancer's agent: so the playbooks and modules need to know nothing of the test.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from tests.fakes.agent import Running

from . import ansible_once
from .tree import ROOT

POOLS = {"gpu1/r0": "chat", "gpu2/r0": "chat", "gpu3/r0": "short", "gpu4/r0": "short"}
PYTHON = """\
#!/bin/sh
exec unshare --mount --propagation private sh -ec '
mount -t tmpfs tmpfs /run; mkdir /run/llm-agent; mount --bind {base} /run/llm-agent; exec {python} "$@"' sh "$@"
"""
pytestmark = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0,
    reason="no mount namespace, in which two balancers could be this machine",
)


class Fleet:
    """An inventory of two balancers and four servers, and the agents of the balancers."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.agents: dict[str, Running] = {}
        balancers = {}
        for name in ("lb1", "lb2"):
            folder = base / name
            folder.mkdir()
            python = base / f"python-{name}"
            python.write_text(PYTHON.format(base=folder, python=sys.executable))
            python.chmod(0o755)
            here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": str(python)}
            balancers[name] = here
        self.balancers = balancers
        self.variables: dict[str, object] = {}

    def start(self, *names: str) -> None:
        for name in names:
            world = {"replicas": {replica: {"pool": pool, "inflight": 0} for replica, pool in POOLS.items()}}
            self.agents[name] = Running(self.base / name, world, host=name)
            self.agents[name].__enter__()

    def stop(self, *names: str) -> None:
        for name in names:
            self.agents.pop(name).__exit__()

    def play(self, name: str, *options: str) -> ansible_once.Ended:
        servers = {replica.partition("/")[0]: {"llmops_pool": pool} for replica, pool in POOLS.items()}
        group = {"hosts": self.balancers, "vars": self.variables}
        (self.base / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"children": {"llm_balancers": group, "llm_servers": {"hosts": servers}}}})
        )
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.base / "home")}
        env |= {"ANSIBLE_INVENTORY": str(self.base / "hosts.yml"), "USER": "alice"}
        return ansible_once.run([["ansible-playbook", f"llmops.vllm.{name}", *options]], cwd=ROOT, env=env)[0]

    def drained(self, name: str) -> list[str]:
        store = self.agents[name].store
        return [replica for replica in POOLS if not store.is_active(replica)]


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
