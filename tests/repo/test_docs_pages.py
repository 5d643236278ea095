"""The generated pages are what specs and documentation say; the collection's variables are those that are used."""

from __future__ import annotations

import pathlib
import re

import pytest

from tools import docs_pages

from . import metric_names

USED_IN = ("roles", "playbooks", "plugins")
QUERIES = ("dashboards", "rules")  # folders of files for Grafana and Prometheus: they know metrics, and no variables
# as a name of its own, or in hostvars[...]
NAME = re.compile(r"(?<![\w:])(?:(?<!\.)|(?<=\]\.))llmops_[a-z_]*[a-z]\b")


@pytest.mark.parametrize("path", docs_pages.pages(), ids=lambda path: path.name)
def test_generated_page_is_up_to_date(path: pathlib.Path) -> None:
    assert path.read_text() == docs_pages.pages()[path], "run `python -m tools.docs_pages`"


def test_the_table_lists_the_variables_of_the_collection_that_are_used_and_no_other() -> None:
    files = [path for folder in USED_IN for path in (docs_pages.ROOT / folder).rglob("*") if path.is_file()]
    texts = [
        path.read_text() for path in files if path.suffix not in (".pyc", ".md") and path.parent.name not in QUERIES
    ]
    used = {name for text in texts for name in NAME.findall(text)} - metric_names.OURS
    assert set(docs_pages.collection_variables()) == used


@pytest.mark.parametrize("name", docs_pages.collection_variables())
def test_a_variable_of_the_collection_has_no_default_of_its_own_in_a_role(name: str) -> None:
    for role in docs_pages.role_readme.ROLES.iterdir():
        assert name not in docs_pages.role_readme.options(role)


def test_markup_of_ansible_becomes_markdown() -> None:
    page = docs_pages.modules_page()
    assert re.findall(r"\b(?:[CVOMPE]|RV)\([^)]", page) == []
    assert "[vllm_wait](#vllm_wait)" in page
