"""The tree as an installed collection: what may lie where, and what may lean on what."""

from __future__ import annotations

import ast
import pathlib
import re
import sys

import pytest

from tests.repo import tree

SHIPPED = sorted(
    path
    for folder in ("plugins", "roles", "playbooks")
    for path in (tree.ROOT / folder).rglob("*")
    if path.suffix in (".py", ".yml", ".j2") and "__pycache__" not in path.parts
)
# What modules and module_utils may import: they run on hosts, where nothing but Python is sure to be.
TARGET_CODE = sorted([*tree.MODULES, *(tree.ROOT / "plugins" / "module_utils").rglob("*.py")])
OURS = "ansible_collections.llmops.vllm.plugins.module_utils"


def test_no_variables_beside_playbooks() -> None:
    """Such directories would override the user's own group_vars."""
    folders = [tree.ROOT / where / name for where in ("", "playbooks", "roles") for name in ("group_vars", "host_vars")]
    assert [tree.ident(folder) for folder in folders if folder.exists()] == []


@pytest.mark.parametrize("path", SHIPPED, ids=tree.ident)
def test_what_is_shipped_stands_by_itself(path: pathlib.Path) -> None:
    """Only plugins, roles, playbooks and meta are sure to be there in an installed copy."""
    text = re.sub(r"(?m)^\s*#.*$", "", path.read_text(encoding="utf-8"))
    assert re.findall(r"(?<![\w-])\.\./(?:\.\./)*(?:inventories|molecule|tests|tools|docs|benchmarks)/", text) == []


@pytest.mark.parametrize("path", TARGET_CODE, ids=tree.ident)
def test_code_of_hosts_needs_python_alone(path: pathlib.Path) -> None:
    wanted: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            wanted.append(str(node.module))
    foreign = [
        name
        for name in wanted
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith((OURS, "ansible.module_utils"))
        and not (path.match("_vllm/probe.py") and name.startswith("vllm"))  # it runs inside vLLM's environment
    ]
    assert foreign == []


def test_shared_code_is_private() -> None:
    entries = (tree.ROOT / "plugins" / "module_utils").iterdir()
    assert [path.name for path in entries if not path.name.startswith("_")] == []
