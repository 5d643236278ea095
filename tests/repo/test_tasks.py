"""Tasks of roles and playbooks: what works on one version of ansible-core alone, and what hides errors."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
from jinja2 import nodes

from tests.repo import tree

FILES = [*tree.TASK_FILES, *tree.PLAYBOOKS]
EVERYWHERE = sorted(
    path for path in (tree.ROOT / "roles").rglob("*") if path.suffix in (".yml", ".j2") and "files" not in path.parts
) + list(tree.PLAYBOOKS)
PHASES = {"absent": "Remove", "transfer": "Install"}


def conditions(task: dict[str, Any]) -> Iterator[str]:
    """Yield the conditions of a task; those of a list are joined by `and`, so each is one."""
    written = [task.get(key) for key in ("when", "failed_when", "changed_when", "until")]
    written += [arguments.get("that") for arguments in task.values() if isinstance(arguments, dict)]
    for value in written:
        yield from (str(part) for part in (value if isinstance(value, list) else [value]) if isinstance(part, str))


def bare_names(condition: str) -> list[str]:
    """Return the variables of users that a condition takes for a boolean as they are."""
    found: list[str] = []

    def judge(node: nodes.Node) -> None:
        if isinstance(node, (nodes.And, nodes.Or)):
            judge(node.left)
            judge(node.right)
        elif isinstance(node, nodes.Not):
            judge(node.node)
        elif isinstance(node, nodes.Name) and not node.name.startswith("__") and node.name not in tree.MAGIC:
            found.append(node.name)

    output = jinja2.Environment(autoescape=True).parse(f"{{{{ {condition} }}}}").body[0]
    assert isinstance(output, nodes.Output)
    judge(output.nodes[0])
    return found


def test_monitoring_brings_into_force_what_it_wrote_before_a_step_failed() -> None:
    """The next run finds those files unchanged, and would tell no service of them."""
    plays = tree.load(tree.ROOT / "playbooks" / "monitoring.yml")
    writing = [play for play in plays if not play["name"].partition(") ")[2].startswith("Check")]
    assert [play.get("force_handlers") for play in writing] == [True, True]


@pytest.mark.parametrize(
    ("condition", "bare"), [("a", ["a"]), ("not a and (b or c | bool)", ["a", "b"]), ("a == 1", [])]
)
def test_bare_names_are_seen(condition: str, bare: list[str]) -> None:
    assert bare_names(condition) == bare


@pytest.mark.parametrize("path", FILES, ids=tree.ident)
def test_no_condition_is_a_bare_variable(path: pathlib.Path) -> None:
    """A spec never converts: the text "false" from an inventory would be true. Write ``x | bool``."""
    assert [name for task in tree.tasks(path) for text in conditions(task) for name in bare_names(text)] == []


@pytest.mark.parametrize("path", EVERYWHERE, ids=tree.ident)
def test_facts_are_read_from_ansible_facts(path: pathlib.Path) -> None:
    """Injected facts are deprecated since 2.20 and gone in 2.24: write ``ansible_facts['x']``."""
    text = re.sub(r"(?m)^\s*#.*$", "", path.read_text(encoding="utf-8"))
    used = set(re.findall(r"(?<![\w.'\"/])ansible_(?!collections[./])[a-z0-9_]+", text))
    assert used - tree.MAGIC == set()


@pytest.mark.parametrize("path", FILES, ids=tree.ident)
def test_no_error_is_ignored(path: pathlib.Path) -> None:
    """``failed_when`` says what may fail; ``ignore_errors`` swallows everything else with it."""
    assert [task.get("name") for task in tree.tasks(path) if "ignore_errors" in task] == []


@pytest.mark.parametrize("path", tree.TASK_FILES, ids=tree.ident)
def test_names_begin_with_the_phase(path: pathlib.Path) -> None:
    if path.stem == "main":
        return
    first = path.stem.partition("_")[0]
    phase = PHASES.get(first, first.capitalize())
    assert [task["name"] for task in tree.tasks(path) if not task["name"].startswith(f"{phase} | ")] == []


@pytest.mark.parametrize("path", tree.PLAYBOOKS, ids=tree.ident)
def test_plays_are_numbered(path: pathlib.Path) -> None:
    names = [play["name"] for play in tree.load(path) if "hosts" in play]  # others are playbooks that are imported
    assert names == [name for number, name in enumerate(names, 1) if name.startswith(f"({number}/{len(names)}) ")]
