"""Defects planted into a copy of the tree: each is caught by the gate that is there for it, in words that help."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tools.checkout import collections_path

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=short"]


@dataclass(frozen=True)
class Defect:
    """A change of one file (pattern and replacement; or a new file), the gate, and what the gate must say."""

    file: str
    pattern: str
    replacement: str
    gate: list[str]
    words: str


ROLE_TESTS = [*PYTEST, "tests/repo/test_roles.py"]
TASK_TESTS = [*PYTEST, "tests/repo/test_tasks.py"]
MODULE_TESTS = [*PYTEST, "tests/repo/test_modules.py"]
VLLM_TASKS = "roles/vllm/tasks/service.yml"

DEFECTS = {
    "default that drifts from its spec": Defect(
        "roles/vllm/defaults/main.yml", r"vllm_restart_seconds: 10", "vllm_restart_seconds: 11",
        ROLE_TESTS, r"test_spec_and_defaults_agree_by_name_and_value\[vllm\]",
    ),
    "variable without a spec": Defect(
        "roles/vllm/defaults/main.yml", r"\Z", "\n# Not in the spec.\nvllm_forgotten: true\n",
        ROLE_TESTS, r"test_spec_and_defaults_agree_by_name_and_value\[vllm\]",
    ),
    "role page that is older than the spec": Defect(
        "roles/vllm/meta/argument_specs.yml", r"Seconds between a crash", "Minutes between a crash",
        ROLE_TESTS, r"test_readme_has_the_table_of_the_spec\[vllm\].*run `python -m tools.role_readme`",
    ),
    "template without the managed header": Defect(
        "roles/vllm/templates/unit.conf.j2", r"{{ ansible_managed \| comment }}\n", "",
        ROLE_TESTS, r"unit\.conf\.j2",
    ),
    "template with a variable that nobody can set": Defect(
        "roles/vllm/templates/unit.conf.j2", r"\Z", "Nice={{ vllm_nice }}\n", ROLE_TESTS, r"vllm_nice",
    ),
    "condition that is true for the text false": Defect(
        VLLM_TASKS, r"vllm_state == 'absent' or", "vllm_purge or", TASK_TESTS, r"'vllm_purge'",
    ),
    "injected fact": Defect(
        VLLM_TASKS, r"when: __vllm_serves and __vllm_dry", "when: ansible_distribution == 'Debian'",
        TASK_TESTS, r"ansible_distribution",
    ),
    "error that is ignored": Defect(
        VLLM_TASKS, r"  register: __vllm_looked\n", "  register: __vllm_looked\n  ignore_errors: true\n",
        TASK_TESTS, r"Service \| Ask replicas",
    ),
    "mode without quotes": Defect(
        "roles/vllm/tasks/configure_units.yml", r'mode: "0644"', "mode: 0644",
        ["yamllint", "--strict", "roles"], r"configure_units\.yml\n.*forbidden implicit octal value",
    ),
    "module without documentation": Defect(
        "plugins/modules/vllm_info.py", r"DOCUMENTATION = ", "TEXT = ",
        MODULE_TESTS, r"test_module_is_documented\[vllm_info\]",
    ),
    "module that would act in check mode": Defect(
        "plugins/modules/vllm_release.py", r"supports_check_mode=True", "supports_check_mode=False",
        MODULE_TESTS, r"test_module_says_what_check_mode_does\[vllm_release\]",
    ),
    "module outside its action group": Defect(
        "meta/runtime.yml", r"    - vllm_wait\n", "", MODULE_TESTS, r"test_every_module_is_in_its_action_group",
    ),
    "third-party import in code of hosts": Defect(
        "plugins/module_utils/_systemd.py", r"\nimport ", "\nimport requests\nimport ",
        [*PYTEST, "tests/repo/test_layout.py"], r"'requests'",
    ),
    "variables beside the playbooks": Defect(
        "playbooks/group_vars/all.yml", r"", "vllm_gpus: 4\n",
        [*PYTEST, "tests/repo/test_layout.py"], r"playbooks/group_vars",
    ),
    "profile with a flag that does not exist": Defect(
        "plugins/module_utils/_vllm/profiles.py", r'"max-num-seqs"', '"max-number-seqs"',
        [*PYTEST, "tests/unit/test_flags.py"], r"max-number-seqs",
    ),
    "example inventory with an error": Defect(
        "inventories/example/group_vars/chat_h100/pool.yml", r"llmops_profile: multi_turn", "llmops_profile: chat",
        [*PYTEST, "tests/repo/test_inventories.py"], r"llmops_profile is 'chat'",
    ),
    "wrong type in the code": Defect(
        "plugins/module_utils/_model/revision.py",
        r"return None\n\n\ndef source_problem", "return 5\n\n\ndef source_problem",
        ["mypy"], r"_model/revision\.py.*return-value",
    ),
    "changelog fragment of no known kind": Defect(
        "changelogs/fragments/planted.yml", r"", "---\nnews:\n  - something\n",
        ["antsibull-changelog", "lint"], r"planted\.yml.*news",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The tracked files as they are now, under git, as some of the gates ask it."""
    base = tmp_path_factory.mktemp("planted") / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=False, capture_output=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, base / name)
    (base / ".venv").symlink_to(ROOT / ".venv")
    subprocess.run(["git", "init", "-q"], cwd=base, check=True)
    subprocess.run(["git", "add", "-A"], cwd=base, check=True)
    return base


@pytest.fixture
def planted(copy: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Defect]:
    defect = DEFECTS[request.param]
    path = copy / defect.file
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    after, count = re.subn(defect.pattern, lambda _: defect.replacement, before or "", count=1)
    assert count == 1, f"{defect.pattern} is not in {defect.file}: plant the defect elsewhere"
    path.write_text(after)
    yield defect
    if before is None:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    else:
        path.write_text(before)


def run(command: list[str], copy: pathlib.Path) -> subprocess.CompletedProcess[str]:
    links = collections_path(copy)
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", ANSIBLE_COLLECTIONS_PATH=str(links), MYPYPATH=str(links))
    env.pop("ANSIBLE_INVENTORY", None)
    return subprocess.run(command, cwd=copy, env=env, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("planted", DEFECTS, indirect=True)
def test_planted_defect_is_caught_by_its_gate(planted: Defect, copy: pathlib.Path) -> None:
    done = run(planted.gate, copy)
    told = done.stdout + done.stderr
    assert done.returncode != 0, f"nobody noticed:\n{told[-3000:]}"
    assert re.search(planted.words, told, re.DOTALL), told[-6000:]


def test_gates_pass_where_nothing_was_planted(copy: pathlib.Path) -> None:
    """Or else the tests above would show nothing."""
    commands = {tuple(defect.gate) for defect in DEFECTS.values()}
    silent = {command: run(list(command), copy) for command in sorted(commands)}
    assert {c: done.stdout[-2000:] + done.stderr[-500:] for c, done in silent.items() if done.returncode != 0} == {}
