"""What the documentation tells to type: every command is proven, every printed inventory has no problem."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from . import ansible_once
from .documented_commands import PROOFS, Here, OnHosts, There
from .markdown_pages import Fence, commands, fences, pages, prose
from .tree import ROOT

COMMANDS = commands()
HERE = {command: proof for command, proofs in PROOFS.items() for proof in proofs if isinstance(proof, Here)}
# What the placeholders of printed inventories stand for.
VAULT = {"vault_backend_key": "b" * 64, "vault_llmops_backend_key": "b" * 64}
VAULT |= {"vault_team_a_key": "a" * 64, "vault_llmops_client_chat_frontend": "c" * 64}
CHECK = "llmops.vllm.check"
SLIPS = (
    ("all/model.yml", r"(?m)^llmops_model_revision.*", "llmops_model_revision: main"),
    ("short_a100/pool.yml", "max-model-len: 8192", "swap-space: 4"),
    ("short_a100/pool.yml", "vllm_tensor_parallel_size", "vllm_tensor_paralel_size"),
)
PROBLEMS = "{{ hostvars | llmops.vllm.fleet_problems(groups) }}"


def inventories() -> list[tuple[Fence, dict[str, Any]]]:
    """Printed inventories, and printed variables of a server as the inventory that they would be in."""
    found = []
    for fence in fences("yaml"):
        content = yaml.safe_load(fence.text)
        if not isinstance(content, dict):
            continue
        if any(isinstance(group, dict) and {"hosts", "children"} & set(group) for group in content.values()):
            found.append((fence, content))
        elif "vllm_replicas" in content:
            found.append((fence, in_a_fleet(content)))
    return found


def in_a_fleet(variables: dict[str, Any]) -> dict[str, Any]:
    common = {"llmops_model_name": "m", "llmops_model_source": "file:///srv/m", "llmops_model_revision": "1"}
    common |= {"llmops_backend_keys": ["{{ vault_backend_key }}"]}
    return {"llm_servers": {"hosts": {"gpu1": variables}, "vars": common}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory in which a reader follows the pages: the checkout's inventories, and what the README prints."""
    base = tmp_path_factory.mktemp("docs")
    (base / "inventories").symlink_to(ROOT / "inventories")
    printed = next(fence for fence in fences("yaml") if fence.page == "README.md" and fence.text.startswith("all:"))
    (base / "inventory.yml").write_text(printed.text)
    (base / "password").write_text("correct horse")
    return base


@pytest.fixture(scope="module")
def environment(workspace: pathlib.Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("ANSIBLE_INVENTORY", "ANSIBLE_CONFIG")}
    plain |= {"ANSIBLE_VAULT_PASSWORD_FILE": str(workspace / "password"), "ANSIBLE_NOCOLOR": "1"}
    return {**plain, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_HOME": str(workspace / "home")}


@pytest.fixture(scope="module")
def ended(workspace: pathlib.Path, environment: dict[str, str]) -> dict[str, ansible_once.Ended]:
    """What the commands that are run here ended with, first the shell's, then ansible's, each in the order above."""
    found = {}
    for command in HERE:
        if not command.startswith("ansible"):
            done = subprocess.run(
                ["bash", "-c", command], cwd=workspace, env=environment, check=False, capture_output=True, text=True
            )
            found[command] = ansible_once.Ended(done.returncode, done.stdout + done.stderr)
    ours = {command: shlex.split(f"{command} {proof.more}") for command, proof in HERE.items() if command not in found}
    return {**found, **dict(zip(ours, ansible_once.run(list(ours.values()), cwd=workspace, env=environment)))}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_proven(command: str) -> None:
    assert command in PROOFS, f"{COMMANDS[command]}: add it to tests/repo/documented_commands.py"


@pytest.mark.parametrize("command", PROOFS)
def test_no_proof_is_stale(command: str) -> None:
    assert command in COMMANDS, "no page has this command any more"


@pytest.mark.parametrize("command", HERE)
def test_command_that_is_run_here(ended: dict[str, ansible_once.Ended], command: str) -> None:
    assert ended[command].rc == 0, ended[command].out
    assert "[WARNING]" not in ended[command].out


def test_the_page_shows_what_check_prints(
    workspace: pathlib.Path, environment: dict[str, str], ended: dict[str, ansible_once.Ended]
) -> None:
    """The report of the example, and that of a copy with the three slips which the page speaks of."""
    shown = [fence.text for fence in fences("text") if fence.text.startswith("Inventory: ")]
    slips = workspace / "slips"
    shutil.copytree(ROOT / "inventories" / "example", slips)
    for name, right, wrong in SLIPS:
        text = (slips / "group_vars" / name).read_text()
        (slips / "group_vars" / name).write_text(re.sub(right, wrong, text))
    done = ansible_once.run([["ansible-playbook", "-i", str(slips), CHECK]], cwd=workspace, env=environment)[0]
    assert done.rc == 2
    told = [ended[f"ansible-playbook -i my-fleet {CHECK}"].out, done.out]
    assert [text in out for text, out in zip(shown, told)] == [True, True]


def test_check_writes_the_json_that_the_page_describes(
    workspace: pathlib.Path, ended: dict[str, ansible_once.Ended]
) -> None:
    told = json.loads((workspace / "check.json").read_text())
    page = (ROOT / "docs" / "getting_started.md").read_text()
    assert [name for name in told if f"`{name}`" not in page] == []
    assert (told["ok"], told["problems"]) == (True, [])


@pytest.mark.parametrize("command", PROOFS)
def test_named_files_have_the_words_of_the_command(command: str) -> None:
    for proof in PROOFS[command]:
        if isinstance(proof, There):
            text = (ROOT / proof.file).read_text()
            assert [word for word in proof.words if word not in text] == [], proof.file
        elif isinstance(proof, OnHosts):
            assert "documented_commands" in (ROOT / "molecule/default/tests/test_documented.py").read_text()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_target_of_make_exists(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_printed_inventories_have_no_problem(workspace: pathlib.Path, environment: dict[str, str]) -> None:
    words, printed = [], inventories()
    for number, (_fence, content) in enumerate(printed):
        path = workspace / f"printed-{number}.yml"
        path.write_text(yaml.safe_dump(content))
        extra = json.dumps(VAULT)
        words.append(["ansible", "localhost", "-i", str(path), "-e", extra, "-m", "debug", "-a", f"msg={PROBLEMS}"])
    answers = ansible_once.run(words, cwd=workspace, env=environment)
    told = {fence.page: answer.out for (fence, _content), answer in zip(printed, answers)}
    assert {"README.md", "docs/getting_started.md", "docs/concepts.md", "roles/vllm/README.md"} <= set(told)
    assert {page: out for page, out in told.items() if json.loads(out.split("=>", 1)[1])["msg"] != []} == {}


@pytest.mark.parametrize("fence", fences("yaml"), ids=lambda fence: f"{fence.page}: {fence.text[:30]!r}")
def test_yaml_parses(fence: Fence) -> None:
    assert yaml.safe_load(fence.text)


def test_no_command_hides_in_another_kind_of_block() -> None:
    for path in pages():
        opened = re.findall(r"^```+([^\n`]*)\n(.*?)^```+$", path.read_text(), re.MULTILINE | re.DOTALL)
        assert {kind.strip() for kind, _text in opened} & {"sh", "bash", "shell"} == set(), f"{path}: make it console"
        assert [text for kind, text in opened if kind.strip() != "console" and text.startswith("$ ")] == [], path
        assert "```" not in prose(path)
