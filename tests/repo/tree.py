"""The collection's own files as the conventions of ``tests/repo`` read them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
TASK_FILES = sorted([*(ROOT / "roles").glob("*/tasks/*.yml"), *(ROOT / "roles").glob("*/handlers/*.yml")])

# Variables of Ansible itself that are no facts.
MAGIC = {
    "ansible_become",
    "ansible_check_mode",
    "ansible_connection",
    "ansible_facts",
    "ansible_failed_result",
    "ansible_failed_task",
    "ansible_host",
    "ansible_managed",
    "ansible_play_batch",
    "ansible_play_hosts_all",
    "ansible_playbook_python",
    "ansible_python_interpreter",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_hostname",
    "item",
    "playbook_dir",
    "role_path",
}


def ident(path: pathlib.Path) -> str:
    """Return a path as the ids of tests show it."""
    return str(path.relative_to(ROOT))


def load(path: pathlib.Path) -> Any:
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def spec(role: pathlib.Path) -> dict[str, Any]:
    """Return the options of a role's main entry point."""
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]


def tasks(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yield every task and block of a task file or playbook, those inside blocks, too."""
    content = load(path) or []
    sections = ("pre_tasks", "tasks", "post_tasks", "handlers")
    plays = [play for play in content if "hosts" in play or "import_playbook" in play]
    waiting = [task for play in plays for section in sections for task in play.get(section, [])] if plays else content
    while waiting:
        task = waiting.pop(0)
        yield task
        waiting = [inner for part in ("block", "rescue", "always") for inner in task.get(part, [])] + waiting
