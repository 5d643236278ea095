"""Modules and filters: documented, in their action group, safe in check mode, tested."""

from __future__ import annotations

import ast
import pathlib
import re
from typing import Any

import pytest
import yaml

from tests.repo import tree

GROUPS = tree.load(tree.ROOT / "meta" / "runtime.yml")["action_groups"]
FRAGMENTS = (tree.ROOT / "plugins" / "doc_fragments" / "attributes.py").read_text()
FILTERS = sorted((tree.ROOT / "plugins" / "filter").glob("*.py"))
HEADER = "# GNU General Public License v3.0+ (see COPYING"


def texts(module: pathlib.Path) -> dict[str, Any]:
    """Return the parsed DOCUMENTATION, EXAMPLES and RETURN of a module; empty where one is missing."""
    found = {}
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("DOCUMENTATION", "EXAMPLES", "RETURN"):
                found[name] = yaml.safe_load(ast.literal_eval(node.value))
    return {"DOCUMENTATION": {}, "EXAMPLES": [], "RETURN": {}, **found}


@pytest.mark.parametrize("module", tree.MODULES, ids=lambda path: path.stem)
def test_module_is_documented(module: pathlib.Path) -> None:
    told = texts(module)
    assert told["DOCUMENTATION"].get("module") == module.stem
    assert told["DOCUMENTATION"].get("short_description")
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(told["DOCUMENTATION"].get("version_added")))
    assert told["RETURN"]
    used = {key for task in told["EXAMPLES"] for key in task if "." in key}
    assert f"llmops.vllm.{module.stem}" in used, "an example that calls the module by its full name"


@pytest.mark.parametrize("module", tree.MODULES, ids=lambda path: path.stem)
def test_module_says_what_check_mode_does(module: pathlib.Path) -> None:
    fragments = texts(module)["DOCUMENTATION"].get("extends_documentation_fragment", [])
    assert {"llmops.vllm.attributes", "llmops.vllm.attributes.info"} & set(fragments)
    action = tree.ROOT / "plugins" / "action" / module.name
    source = action.read_text() if action.exists() else module.read_text()
    assert re.search(r"supports_check_mode\s*=\s*True", source)


def test_every_module_is_in_its_action_group() -> None:
    assert sorted(GROUPS["vllm"]) == [module.stem for module in tree.MODULES]


@pytest.mark.parametrize("module", tree.MODULES, ids=lambda path: path.stem)
def test_module_has_an_integration_target(module: pathlib.Path) -> None:
    """A target that has the name of a role would be taken for the role: such a one ends in ``_module``."""
    targets = [tree.ROOT / "tests/integration/targets" / f"{module.stem}{end}" for end in ("", "_module")]
    assert any((target / "tasks" / "main.yml").is_file() for target in targets)


def test_every_filter_has_its_page_and_every_page_its_filter() -> None:
    named = set()
    for path in FILTERS:
        named |= set(re.findall(r'^ {12}"(\w+)":', path.read_text(), re.MULTILINE))
    assert named == {path.stem for path in (tree.ROOT / "plugins" / "filter").glob("*.yml")}


@pytest.mark.parametrize("path", sorted((tree.ROOT / "plugins").rglob("*.py")), ids=tree.ident)
def test_plugin_has_the_licence_header(path: pathlib.Path) -> None:
    assert HEADER in path.read_text()[:400]


@pytest.mark.parametrize("path", sorted((tree.ROOT / "plugins" / "modules").glob("*.py")), ids=tree.ident)
def test_module_is_spec_call_exit(path: pathlib.Path) -> None:
    """Logic belongs into module_utils, where it is tested without Ansible."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    lines = sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions)
    assert lines <= 100, f"{lines} lines of code in functions"
