"""The inventories that people copy: they parse, and nothing is wrong with them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def evaluate(inventory: pathlib.Path, expression: str) -> object:
    """Let ansible evaluate an expression with this inventory, as a playbook would."""
    command = ["ansible", "localhost", "-i", str(inventory), "-m", "ansible.builtin.debug"]
    env = dict(os.environ, ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    words = [*command, "-a", f"msg={{{{ {expression} }}}}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.split("=>", 1)[1])["msg"]


def test_example_has_no_problem() -> None:
    problems = evaluate(ROOT / "inventories" / "example", "hostvars | llmops.vllm.fleet_problems(groups)")
    assert problems == []


def test_example_is_the_fleet_that_it_says() -> None:
    query = "hostvars | llmops.vllm.fleet_replicas(groups.llm_servers) | llmops.vllm.fleet_pools"
    pools = evaluate(ROOT / "inventories" / "example", query)
    found = {pool["name"]: [replica["id"] for replica in pool["replicas"]] for pool in pools}
    assert found["short-a100"] == ["gpu4/r0"]
    assert found["chat-h100"] == ["gpu1/r0", "gpu1/r1", "gpu2/r0", "gpu2/r1", "gpu3/r0", "gpu3/r1"]


@pytest.mark.parametrize("name", ["example", "sandbox"])
def test_inventory_parses_without_a_warning(name: str) -> None:
    command = ["ansible-inventory", "-i", str(ROOT / "inventories" / name), "--list", "--export"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "[WARNING]" not in done.stderr, done.stderr


def test_sandbox_inventory_names_the_hosts_that_the_tool_starts() -> None:
    from tools.sandbox.layout import HOSTS

    command = ["ansible-inventory", "-i", str(ROOT / "inventories" / "sandbox"), "--list"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    addresses = {name: variables["llmops_address"] for name, variables in listed["_meta"]["hostvars"].items()}
    assert addresses == {host.name: host.address for host in HOSTS if host.name != "client1"}
