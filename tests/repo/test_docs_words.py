"""What the documentation says: links lead somewhere, variables exist, quoted messages are those of the code."""

from __future__ import annotations

import ast
import functools
import json
import pathlib
import re

import pytest
import yaml

from tools import docs_pages, role_readme
from tools.rules import source

from . import markdown_pages, metric_names
from .markdown_pages import Fence, fences, pages
from .tree import ROOT

PAGES = {str(path.relative_to(ROOT)): path for path in pages()}
MESSAGES = fences("text llmops")
NAME = re.compile(
    r"(?<![\w.:/@-])(?:gpu_driver|vllm|llm_model|llm_balancer|llm_exporters|llm_monitoring|llmops)_[a-z0-9_]*[a-z0-9](?![\w(])"
)
CODE = (
    "plugins/module_utils/**/*.py",
    "plugins/action/*.py",
    "roles/*/tasks/*.yml",
    "roles/*/templates/*",
    "roles/*/files/gpu-free",
)


@functools.cache
def known_variables() -> set[str]:
    """Variables of the roles, with the keys of their entries, and of the collection."""
    found = set(docs_pages.collection_variables())
    for role in role_readme.ROLES.iterdir():
        found |= set(role_readme.options(role))
    return found


def other_names() -> set[str]:
    """What is named like a variable: modules, filters, roles, groups, targets of tests, a package, metrics."""
    plugins = [path.stem for kind in ("modules", "filter") for path in (ROOT / "plugins" / kind).iterdir()]
    targets = [path.name for path in (ROOT / "tests" / "integration" / "targets").iterdir()]
    roles = [role.name for role in role_readme.ROLES.iterdir()]
    hosts = yaml.safe_load((ROOT / "inventories" / "example" / "hosts.yml").read_text())
    return {*plugins, *targets, *roles, *hosts["all"]["children"], *metric_names.OURS, *series(), "vllm_cpu"}


@functools.cache
def series() -> set[str]:
    """Parts of the names of series that rules record or ask for: ``pool:vllm_ttft_seconds:p99_5m`` has three."""
    rules = source.all_rules()
    names = {name for rule in rules for name in (rule.name, *source.series_names(rule.body["expr"]))}
    return {part for name in names for part in name.split(":")}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_lead_somewhere(page: str) -> None:
    broken = []
    for target in markdown_pages.links(PAGES[page]):
        name, _hash, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        if not path.exists() or (anchor and anchor not in markdown_pages.anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_is_named_exists(page: str) -> None:
    text = PAGES[page].read_text()
    for fence in fences("text"):  # what a program printed may show a name that is wrong
        text = text.replace(fence.text, "")
    named = set(NAME.findall(text))
    assert sorted(named - known_variables() - other_names()) == []


def test_every_page_of_docs_is_in_its_index() -> None:
    index = set(markdown_pages.links(ROOT / "docs" / "README.md"))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= index


@functools.cache
def source_texts() -> dict[str, str]:
    """Texts that the code prints, file by file: what varies is cut out, what is written in parts is joined."""
    found = {}
    for pattern in CODE:
        for path in ROOT.glob(pattern):
            text = python_texts(path) if path.suffix == ".py" else other_text(path)
            found[str(path.relative_to(ROOT))] = " ".join(text.split())
    return found


def python_texts(path: pathlib.Path) -> str:
    texts = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
            texts.append("".join(str(part) for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return "\n".join(texts)


def other_text(path: pathlib.Path) -> str:
    text = path.read_text()
    # a text that ends, or begins, an expression of Jinja goes on outside of it
    return text + "\n" + re.sub(r"' *\}\}", "", re.sub(r"\{\{ *'", "", text))


def pieces(message: str) -> list[str]:
    """The words of a quoted message between what varies: placeholders, quotes, names of variables, joints."""
    names = "|".join(sorted(known_variables(), key=len, reverse=True))
    found = re.split(rf"<[^<>]*>|['\"]|\b(?:{names})\b|: |\s+$", message.strip())
    return [" ".join(piece.split()) for piece in found if re.search(r"[A-Za-z]{2}", piece)]


@pytest.mark.parametrize("fence", MESSAGES, ids=lambda fence: fence.text[:60].strip())
def test_quoted_message_is_that_of_the_code(fence: Fence) -> None:
    words = pieces(fence.text)
    assert max(len(piece) for piece in words) >= 10, "too short to be found by anybody"
    files = [name for name, text in source_texts().items() if all(piece in text for piece in words)]
    assert files, f"no file prints all of {words}"


def test_troubleshooting_covers_what_can_happen() -> None:
    symptoms = re.findall(r"^### ", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [fence for fence in MESSAGES if fence.page == "docs/troubleshooting.md"]
    assert len(symptoms) >= 40
    assert len(quoted) >= 40


def test_operating_shows_the_columns_and_fields_of_status() -> None:
    from ansible_collections.llmops.vllm.plugins.module_utils import _status

    replica = {
        "id": "gpu1/r0",
        "host": "gpu1",
        "pool": "p",
        "profile": "baseline",
        "address": "192.0.2.21",
        "port": 8000,
    }
    rows = _status.rows([replica], {})
    page = (ROOT / "docs" / "operating.md").read_text()
    shown = next(fence.text for fence in fences("text") if fence.page == "docs/operating.md")
    assert tuple(shown.splitlines()[0].split()) == _status.COLUMNS
    assert [field for field in rows[0] if f"`{field}`" not in page] == []
    assert f"`{rows[0]['health']}`" in page
    assert rows[0]["reason"] in shown


def test_operating_explains_the_fields_of_the_access_log() -> None:
    template = (ROOT / "roles" / "llm_balancer" / "templates" / "nginx.conf.j2").read_text()
    fields = set(re.findall(r'"(\w+)":"?\$', template.split("log_format")[1].split(";")[0]))
    page = (ROOT / "docs" / "operating.md").read_text()
    told = {
        name
        for row in re.findall(r"^\| (`.*?) \|", page.split("## Logs")[1].split("\n## ")[0], re.MULTILINE)
        for name in row.split("`")
    }
    named = {name for name in told if re.fullmatch(r"[a-z_]+", name)}
    assert named
    assert named <= fields


def test_the_figures_of_a_second_run_are_the_measured_ones() -> None:
    measured = (ROOT / "benchmarks" / "site_run" / "RESULTS.md").read_text()
    seconds = round(float(re.search(r"^([\d.]+) s wall", measured, re.MULTILINE)[1]))
    page = (ROOT / "docs" / "operating.md").read_text()
    assert f"`changed=0`, {seconds} s" in page
    assert f"| `site` when nothing changes | {seconds} s |" in page


def test_defaults_that_pages_name_are_those_of_the_roles() -> None:
    """``name`` (value): a default in brackets behind the variable, as pages write it."""
    defaults = {name: str(about["default"]) for name, about in docs_pages.collection_variables().items()}
    for role in role_readme.ROLES.iterdir():
        options = role_readme.options(role)
        defaults |= {name: str(about["default"]) for name, about in options.items() if "default" in about}
    for page in (ROOT / "docs").glob("*.md"):
        for name, value in re.findall(r"`(\w+)` \((\d+)(?: s)?\)", page.read_text()):
            assert defaults[name] == value, f"{page.name}: {name}"
    assert json.loads(defaults["vllm_start_timeout"]) == 1800
