"""Every role: defaults, spec and README say the same, and defaults explain themselves."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import jinja2
import jinja2.meta
import pytest
import yaml

from tests.repo import tree
from tools import role_readme

ROLES = sorted(role_readme.ROLES.iterdir())


def defaults(role: pathlib.Path) -> dict[str, Any]:
    return yaml.safe_load((role / "defaults" / "main.yml").read_text())


def is_computed(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_spec_and_defaults_agree_by_name_and_value(role: pathlib.Path) -> None:
    options = role_readme.options(role)
    assert list(options) == list(defaults(role))
    written = {name: value for name, value in defaults(role).items() if not is_computed(value)}
    assert {name: option["default"] for name, option in options.items() if "default" in option} == written


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_readme_has_the_table_of_the_spec(role: pathlib.Path) -> None:
    assert (role / "README.md").read_text() == role_readme.page(role), "run `python -m tools.role_readme`"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_sentence_stands_above_every_default(role: pathlib.Path) -> None:
    lines = (role / "defaults" / "main.yml").read_text().splitlines()
    bare = [line for above, line in zip(lines, lines[1:]) if re.match(r"[a-z_]+:", line) and not above.startswith("# ")]
    assert bare == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_phases_are_the_ones_of_the_house(role: pathlib.Path) -> None:
    tasks = yaml.safe_load((role / "tasks" / "main.yml").read_text())
    phases = [task["ansible.builtin.import_tasks"].removesuffix(".yml") for task in tasks]
    house = ["preflight", "install", "configure", "service", "verify"]
    assert phases == [phase for phase in house if phase in phases]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_template_says_that_it_is_managed(role: pathlib.Path) -> None:
    texts = {path.name: path.read_text() for path in (role / "templates").glob("*")}
    # A part that another template includes or imports stands below that one's header.
    parts = re.findall(r"{% (?:include|import) '(\w+)' ~ ", "".join(texts.values()))
    whole = [name for name in texts if not name.startswith(tuple(parts))]
    assert [name for name in whole if "ansible_managed | comment" not in texts[name]] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_of_a_template_is_in_the_spec(role: pathlib.Path) -> None:
    known = {*role_readme.options(role), *tree.MAGIC}
    environment = jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=True)
    used: dict[str, set[str]] = {}
    for path in sorted((role / "templates").glob("*")):
        # Filters of ansible are no variables; jinja2 itself does not know them.
        text = re.sub(r"\|\s*(ansible\.builtin|llmops\.vllm)\.(\w+)", r"| \2", path.read_text())
        environment.filters |= dict.fromkeys(re.findall(r"\|\s*(\w+)", text), str)
        environment.tests |= dict.fromkeys(re.findall(r"\bis (?:not )?(\w+)", text), bool)
        used[path.name] = jinja2.meta.find_undeclared_variables(environment.parse(text))
    strangers = {name: {v for v in found if not v.startswith("__")} - known for name, found in used.items()}
    assert {name: found for name, found in strangers.items() if found - {"lookup", "query", "now"}} == {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_entry_point_that_playbooks_use_first_is_validated(role: pathlib.Path) -> None:
    """Roles entered by ``tasks_from`` get no validation of their variables unless the spec names that entry point."""
    entries = tree.load(role / "meta" / "argument_specs.yml")["argument_specs"]
    assert {"main", "preflight"} <= set(entries)
