"""What ``rollout.yml`` and its sisters refuse before anybody is touched, by real ansible against two small agents.

What they do to replicas is seen on hosts: molecule/rollout, molecule/rollout_broken, molecule/interrupted.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._release.home import Home, Owner
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import release_from
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.release import Wish, apply

from tests import certificates

from . import ansible_once
from .small_fleet import Fleet, needs_namespaces

pytestmark = needs_namespaces
ALL = {"llmops_model_name": "tiny", "llmops_model_source": "file:///srv/tiny", "llmops_model_revision": "a"}
TLS = {"certificate": "crt", "key": "key"}
CLIENTS = [{"name": "a", "key": "sk-0123456789abcdef0123456789abcdef"}]
KEYS = ["0123456789abcdef0123456789abcdef"]


def stage(root: pathlib.Path, number: int) -> None:
    """A release, in force when it is the first one."""
    env, model = root / "env" / "0.32.0", root / "models" / "tiny" / "a"
    for path in (env / "bin", model):
        path.mkdir(parents=True, exist_ok=True)
    (env / "bin" / "vllm").write_text("#!/bin/sh\n")
    (env / "bin" / "vllm").chmod(0o755)
    given = {"settings": {"max-num-seqs": number}, "env": str(env), "model": str(model), "model_name": "tiny"}
    given |= {"model_revision": "a", "version": "0.32.0", "environment": {}, "secrets": {}, "unit": ""}
    home = Home(str(root / "etc"), "r0", Owner("root", "root"))
    (root / "etc").mkdir(exist_ok=True)
    apply(home, Wish("staged", release_from(given)))
    if not home.pointer("current"):
        apply(home, Wish("active"))
        apply(home, Wish("verified"))


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    certificates.write(tmp_path / "pki", "server", name="llm.example.com", days=90)
    made.variables |= {f"llm_balancer_tls_{part}": f"{tmp_path}/pki/server.{end}" for part, end in TLS.items()}
    made.variables |= {"llm_balancer_server_name": "llm.example.com", "llmops_client_keys": CLIENTS}
    for number, variables in enumerate(made.balancers.values(), 11):
        variables |= {"llmops_address": f"127.0.0.{number}", "llmops_backend_keys": KEYS}
    for number, (name, variables) in enumerate(made.servers.items(), 21):
        (tmp_path / name).mkdir()
        stage(tmp_path / name, 1)
        variables |= {"ansible_connection": "local", "ansible_become": False, "vllm_gpus": 0, **ALL}
        variables |= {"ansible_python_interpreter": sys.executable, "llmops_address": f"127.0.0.{number}"}
        variables |= {"vllm_releases_root": str(tmp_path / name / "etc"), "llmops_backend_keys": KEYS}
    made.start("lb1", "lb2")
    yield made
    made.stop(*made.agents)


def play(fleet: Fleet, name: str, *options: str, **variables: object) -> ansible_once.Ended:
    given = {"llmops_rollout_directory": str(fleet.base / "rollouts"), "llmops_rollout_metrics_directory": ""}
    return fleet.play(name, "-e", json.dumps({**given, **variables}), *options)


def untouched(fleet: Fleet) -> bool:
    leases = [fleet.agents[name].store.leases() for name in fleet.agents]
    return all(fleet.drained(name) == [] for name in fleet.agents) and not any(leases)


def test_check_mode_prints_the_plan_and_touches_nobody(fleet: Fleet) -> None:
    ended = play(fleet, "restart", "--check", llmops_rollout_pools=["chat"])
    assert ended.rc == 0, ended.out
    assert "batch 1: gpu1/r0: restart" in ended.out
    assert "batch 2: gpu2/r0: restart" in ended.out
    assert "gpu3/r0" not in ended.out
    assert untouched(fleet)


def test_a_replica_that_hangs_may_be_restarted_without_waiting_for_it(fleet: Fleet) -> None:
    """Variables as the runbooks give them: texts."""
    given = ["llmops_rollout_replicas=gpu1/r0", "llmops_rollout_drain_timeout=30", "llmops_rollout_drain_action=cut"]
    ended = play(fleet, "restart", "--check", *(word for text in given for word in ("-e", text)))
    assert ended.rc == 0, ended.out
    assert "batch 1: gpu1/r0: restart" in ended.out
    assert "gpu2/r0" not in ended.out


@pytest.mark.parametrize(
    ("name", "options", "variables", "words"),
    [
        ("rollout", ("--limit", "gpu1"), {}, "--limit is gpu1: a rollout must see every balancer"),
        ("restart", (), {"llmops_rollout_pools": "chta"}, "llmops_rollout_pools names chta, which is no pool"),
        ("restart", (), {"llmops_rollout_replicas": ["gpu9"]}, "'gpu9' is no replica, host or pool"),
        ("restart", (), {"llmops_rollout_batches": ["half"]}, "llmops_rollout_batches has 'half'"),
        ("restart", (), {"llmops_rollout_drain_action": "wait"}, "llmops_rollout_drain_action is wait: fail or cut"),
        ("restart", (), {"llmops_rollout_canary": {"soak": 900}}, "timeout is 600, needed is 900 or more"),
        ("restart", (), {"llmops_rollout_shadow": {"request": 5}}, "vllm_shadow) module: request"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_host_is_asked(
    fleet: Fleet, name: str, options: tuple[str, ...], variables: dict[str, object], words: str
) -> None:
    ended = play(fleet, name, *options, **variables)
    assert ended.rc != 0
    assert words in " ".join(ended.out.split())
    assert "(2/7)" not in ended.out
    assert untouched(fleet)


def test_what_is_of_the_whole_run_is_not_set_for_some_hosts(fleet: Fleet) -> None:
    fleet.servers["gpu3"]["llmops_rollout_min_healthy"] = 1
    ended = play(fleet, "restart")
    assert "llmops_rollout_min_healthy is 1 for gpu3 and not set for the balancers" in " ".join(ended.out.split())
    assert ended.rc != 0 and untouched(fleet)


def test_golden_prompts_that_do_not_parse_are_refused_before_any_host_is_asked(fleet: Fleet) -> None:
    golden = fleet.base / "golden.yml"
    golden.write_text("- {name: capital, prompt: x, expect: {contans: Paris}}\n")
    ended = play(fleet, "restart", llmops_rollout_golden=str(golden))
    assert ended.rc != 0
    assert "contans" in ended.out
    assert "(2/7)" not in ended.out


def test_gates_of_one_pool_alone_are_looked_at_like_those_of_all(fleet: Fleet) -> None:
    golden = fleet.base / "golden.yml"
    golden.write_text("- {name: capital, prompt: x, expect: {contans: Paris}}\n")
    fleet.servers["gpu3"]["llmops_rollout_golden"] = str(golden)
    ended = play(fleet, "restart")
    assert ended.rc != 0
    assert "contans" in ended.out
    assert "(2/7)" not in ended.out


@pytest.mark.parametrize(
    "shadow", [{"mix": [{"prompt_tokens": 50, "output_tokens": 20}]}, {"access_log": "/var/log/nginx/other.log"}]
)
def test_lengths_for_the_shadow_may_be_given_or_come_from_another_log(fleet: Fleet, shadow: dict[str, object]) -> None:
    ended = play(fleet, "restart", "--check", llmops_rollout_shadow=shadow)
    assert ended.rc == 0, ended.out


def test_a_lease_is_taken_over_when_its_run_is_said_to_be_dead(fleet: Fleet) -> None:
    holder = "rollout 20260101T000000Z-1 bob@ops2 00000000.1.1"
    fleet.agents["lb2"].store.take_lease("chat", holder, 120)
    refused = play(fleet, "restart", llmops_rollout_min_healthy=1)
    assert "-e llmops_rollout_takeover=" in " ".join(refused.out.split())
    ended = play(fleet, "restart", "--check", llmops_rollout_min_healthy=1, llmops_rollout_takeover=holder)
    assert ended.rc == 0, ended.out
    assert "would be taken over" in ended.out or "batch 1" in ended.out


def test_a_pool_that_somebody_else_holds_is_refused(fleet: Fleet) -> None:
    fleet.agents["lb2"].store.take_lease("chat", "rollout 20260101T000000Z-1 bob@ops2 00000000.1.1", 120)
    ended = play(fleet, "restart", llmops_rollout_min_healthy=1)
    assert ended.rc != 0
    assert "bob@ops2" in ended.out
    assert fleet.drained("lb1") == fleet.drained("lb2") == []


def test_a_rollback_without_a_previous_release_is_refused(fleet: Fleet) -> None:
    ended = play(fleet, "rollback")
    assert ended.rc != 0
    assert "there is none on this host" in ended.out
    assert untouched(fleet)
