"""What drains and rollouts silence in Alertmanager, by real ansible against a small one."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest
import yaml

from tests.fakes.alertmanager import Alertmanager
from tests.fakes.web import Web

from . import ansible_once
from .small_fleet import Fleet, needs_namespaces
from .tree import ROOT

ROLLED = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.add_host:
        name: "{{ item }}-r0"
        groups: __rollout_entries
        __run: {action: reboot, ident: 20270131T030000-1}
        __entry: {host: "{{ item }}", members: [{id: "{{ item }}/r0"}, {id: "{{ item }}/r1"}]}
      loop: [gpu1, gpu-2]
- hosts: llm_balancers:__rollout_entries
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks: TASKS/rollout/silence.yml
      run_once: true
      loop: [present, present, absent]
      loop_control: {loop_var: __silence_state}
"""
NOT_SILENCED = "No llmops_alertmanager_urls: alerts that this causes are not silenced"
REPLICAS = 'group="health" replica=~"gpu1/r0|gpu1/r1|gpu\\-2/r0|gpu\\-2/r1"'


@pytest.fixture
def alertmanager() -> Iterator[tuple[Alertmanager, Web]]:
    fake = Alertmanager()
    with Web(fake, login=("ops", "correct horse")) as web:
        yield fake, web


def asking(web: Web) -> dict[str, object]:
    login = {"llmops_monitoring_user": "ops", "llmops_monitoring_password": "correct horse"}
    return {"llmops_alertmanager_urls": [web.url], **login}


def silenced(fake: Alertmanager, state: str = "active") -> list[str]:
    """Silences in this state, each with its matchers as one text."""
    _status, found = fake("GET", "/api/v2/silences", {})
    return [
        " ".join(f'{m["name"]}{"=~" if m["isRegex"] else "="}"{m["value"]}"' for m in one["matchers"])
        for one in found
        if one["status"]["state"] == state
    ]


def rolled(
    directory: pathlib.Path, variables: dict[str, object], monitors: dict[str, object] | None = None
) -> ansible_once.Ended:
    """What a reboot of two hosts with two replicas each says to Alertmanager, from its plan to its end."""
    (directory / "rolled.yml").write_text(ROLLED.replace("TASKS", str(ROOT / "playbooks" / "tasks")))
    balancers = {"hosts": {"lb1": {"ansible_connection": "local"}}, "vars": variables}
    groups = {"llm_balancers": balancers, "llm_monitors": {"hosts": monitors or {}}}
    (directory / "hosts.yml").write_text(yaml.safe_dump(groups))
    env = {**os.environ, "ANSIBLE_INVENTORY": str(directory / "hosts.yml"), "ANSIBLE_HOME": str(directory / "home")}
    return ansible_once.run([["ansible-playbook", str(directory / "rolled.yml")]], cwd=ROOT, env=env)[0]


@needs_namespaces
def test_a_drain_silences_its_replicas_and_undrain_ends_it_for_those_that_are_back(
    tmp_path: pathlib.Path, alertmanager: tuple[Alertmanager, Web]
) -> None:
    fake, web = alertmanager
    fleet = Fleet(tmp_path)
    fleet.variables |= asking(web)
    fleet.start("lb1", "lb2")
    both = ("-e", "llmops_target=gpu1,gpu3", "-e", "llmops_reason=kernel")
    try:
        assert fleet.play("drain", *both, "--check").rc == 0
        assert fake.silences == []
        done = fleet.play("drain", *both)
        assert done.rc == 0, done.out
        assert silenced(fake) == ['group="health" replica="gpu1/r0"', 'group="health" replica="gpu3/r0"']
        assert fake.silences[0]["comment"] == "drained by alice, drain.yml: kernel"
        assert "correct horse" not in done.out
        done = fleet.play("undrain", "-e", "llmops_target=gpu1")
        assert done.rc == 0, done.out
        assert silenced(fake) == ['group="health" replica="gpu3/r0"']
        web.down = True
        done = fleet.play("undrain", "-e", "llmops_target=gpu3")
        assert done.rc == 0, done.out
        assert "alerts are not silenced: GET" in " ".join(done.out.split())
        assert fleet.drained("lb1") == fleet.drained("lb2") == []
    finally:
        fleet.stop(*fleet.agents)


def test_a_reboot_silences_what_it_takes_out_and_ends_that(
    tmp_path: pathlib.Path, alertmanager: tuple[Alertmanager, Web]
) -> None:
    fake, web = alertmanager
    done = rolled(tmp_path, asking(web))
    assert done.rc == 0, done.out
    changes = [method for method, _path, _sent in web.asked if method != "GET"]
    assert changes == ["POST", "POST", "DELETE", "DELETE"]
    assert silenced(fake, "expired") == [REPLICAS, 'group="host" host=~"gpu1|gpu\\-2"']
    assert fake.silences[0]["comment"] == "reboot: 20270131T030000-1"
    assert "correct horse" not in done.out
    assert NOT_SILENCED not in done.out


@pytest.mark.parametrize(("monitors", "said"), [({"mon1": {}}, 2), ({}, 0)])
def test_alerts_that_nobody_silences_are_said(tmp_path: pathlib.Path, monitors: dict[str, object], said: int) -> None:
    """Once where they begin and once where they are prolonged; where nobody is watched, nobody is alerted."""
    done = rolled(tmp_path, {}, monitors)
    assert done.rc == 0, done.out
    assert " ".join(done.out.split()).count(NOT_SILENCED) == said
