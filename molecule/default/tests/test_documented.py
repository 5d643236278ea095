"""Commands of the documentation, as they stand there, on the hosts of the sandbox: these have the same names."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

import pytest
from conftest import HOSTS, SERVERS

from tests.repo.documented_commands import PROOFS, OnHosts
from tools.sandbox.client import base_url
from tools.sandbox.environment import for_ansible
from tools.sandbox.layout import PKI
from tools.sandbox.pki import client_key

DOCUMENTED = [command for command, proofs in PROOFS.items() if OnHosts() in proofs]


def run(command: str, cwd: pathlib.Path) -> str:
    """Type the command in a shell that has read ``.sandbox/env``; the reader's inventory is the sandbox's."""
    env = {**for_ansible(), "ANSIBLE_NOCOLOR": "1", "LLMOPS_URL": base_url()}
    for name in ("ANSIBLE_FORCE_COLOR", "PY_COLORS"):
        env.pop(name, None)
    env |= {"LLMOPS_CA": str(PKI / "ca.crt"), "LLMOPS_API_KEY": client_key("demo")}
    words = command.replace("-i my-fleet ", "")
    done = subprocess.run(["bash", "-c", words], cwd=cwd, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_command_ends_well_and_changes_nothing(command: str, tmp_path: pathlib.Path) -> None:
    if command.startswith("curl") and not shutil.which("curl"):
        pytest.skip("no curl on this machine; test_balancers.py sends the same request from the client host")
    told = run(command, tmp_path)
    if command.startswith("curl"):
        assert json.loads(told)["choices"], told
    if "llmops.vllm.site" in command:
        assert told.count("changed=0") == told.count("unreachable=0"), told[-1500:]


def test_status_tells_every_replica_as_table_and_as_json(tmp_path: pathlib.Path) -> None:
    told = run("ansible-playbook llmops.vllm.status -e llmops_status_file=status.json", tmp_path)
    rows = json.loads((tmp_path / "status.json").read_text())["replicas"]
    assert [row["id"] for row in rows] == [f"{server}/r0" for server in SERVERS]
    assert {row["health"] for row in rows} == {"ok"}
    assert {row["pending"] for row in rows} == {""}
    assert [row["id"] for row in rows if row["id"] not in told or row["release"] not in told] == []
    assert {row["host"] for row in rows} < {host.name for host in HOSTS}
