"""The collection as users get it: built, installed into an empty directory, used by FQCN, with the rest deleted."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = {"plugins", "roles", "playbooks", "meta", "MANIFEST.json", "FILES.json"}


def run(*command: str, env: dict[str, str], cwd: pathlib.Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(archive: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, str]]:
    base = tmp_path_factory.mktemp("package")
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(base / "target"), ANSIBLE_HOME=str(base / "home"))
    env.pop("ANSIBLE_CONFIG", None)
    env.pop("ANSIBLE_INVENTORY", None)
    run("ansible-galaxy", "collection", "install", str(archive), "-p", str(base / "target"), env=env, cwd=base)
    tree = base / "target" / "ansible_collections" / "llmops" / "vllm"
    for entry in tree.iterdir():
        if entry.name not in KEPT:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(ROOT / "inventories" / "example", base / "inventory")
    return base, env


def test_no_private_file_is_shipped(archive: pathlib.Path) -> None:
    with tarfile.open(archive) as shipped_files:
        shipped = shipped_files.getnames()
    assert "plugins/modules/vllm_release.py" in shipped
    assert [
        name for name in shipped if name.startswith((".git", ".venv", ".sandbox", ".ci", "tests/output", "llmops"))
    ] == []


@pytest.mark.parametrize("playbook", sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml")))
def test_playbooks_run_by_name_from_the_installed_copy(
    installed: tuple[pathlib.Path, dict[str, str]], playbook: str
) -> None:
    base, env = installed
    command = ["ansible-playbook", "-i", str(base / "inventory"), f"llmops.vllm.{playbook}", "--syntax-check"]
    assert str(base / f"target/ansible_collections/llmops/vllm/playbooks/{playbook}.yml") in run(
        *command, env=env, cwd=base
    )


def test_every_module_of_the_installed_copy_has_documentation(
    installed: tuple[pathlib.Path, dict[str, str]],
) -> None:
    base, env = installed
    tree = base / "target" / "ansible_collections" / "llmops" / "vllm" / "plugins" / "modules"
    modules = sorted(path.stem for path in tree.glob("*.py"))
    assert modules
    names = [f"llmops.vllm.{name}" for name in modules]
    told = json.loads(run("ansible-doc", "--json", *names, env=env, cwd=base))
    assert [name for name in names if not told[name]["doc"]["short_description"]] == []


def test_a_bad_inventory_is_refused_by_the_installed_copy(installed: tuple[pathlib.Path, dict[str, str]]) -> None:
    base, env = installed
    command = ["ansible-playbook", "-i", str(base / "inventory"), "llmops.vllm.site", "--tags", "check"]
    done = subprocess.run(
        [*command, "-e", "llmops_profile=no_such_profile"],
        env=env,
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no_such_profile" in done.stdout
    assert "llmops_profile" in done.stdout
