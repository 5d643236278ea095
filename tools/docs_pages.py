"""Writes the reference pages ``docs/variables.md`` and ``docs/modules.md`` from the specs and documentation blocks.

``python -m tools.docs_pages`` rewrites them; a test holds them equal to what they are made from.
"""

from __future__ import annotations

import ast
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from . import role_readme

ROOT = role_readme.ROLES.parent
DOCS = ROOT / "docs"
PLUGINS = ROOT / "plugins"
VARIABLES = ROOT / "meta" / "collection_variables.yml"
MADE = "<!-- Made by tools/docs_pages.py: change the specs, then run `python -m tools.docs_pages`. -->"


def collection_variables() -> dict[str, dict[str, Any]]:
    """Return the variables of the whole collection, as ``meta/collection_variables.yml`` lists them."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(VARIABLES.read_text())
    return found


def variables_page() -> str:
    """Return the page of all variables: the collection's, then those of each role."""
    lines = ["# Variables", "", MADE, ""]
    lines += [
        "Set them in the inventory, where the group or host is that they belong to. `llmops_*` hold for the whole",
        "collection: roles take their defaults from them, so that a value stands once. A variable of a role wins over",
        "the collection's.",
        "",
    ]
    lines += ["## The whole collection", "", "| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, about in collection_variables().items():
        lines.append(f"| `{name}` | {about['type']} | {_shown(about['default'])} | {about['description']} |")
    for role in sorted(role_readme.ROLES.iterdir()):
        spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]
        lines += [
            "",
            f"## Role {role.name}",
            "",
            f"{spec['short_description']}: [its page](../roles/{role.name}/README.md).",
        ]
        lines += ["", *role_readme.rows(role)]
        for name, option in role_readme.options(role).items():
            if "options" in option:
                lines += ["", f"### Entries of {name}", "", *_options(option["options"])]
    return "\n".join(lines) + "\n"


def modules_page() -> str:
    """Return the page of all modules and filters, from their documentation blocks."""
    lines = ["# Modules and filters", "", MADE, ""]
    lines += [
        "`ansible-doc llmops.vllm.NAME` shows the same at the command line, for a filter with `-t filter`.",
        "",
        "## Modules",
    ]
    for name, about, examples, returned in _modules():
        lines += ["", f"### {name}", "", *_about(about)]
        lines += ["", *_attributes(about), "", *_options(about.get("options") or {})]
        lines += ["", "```yaml", examples.strip(), "```"]
        if returned:
            lines += ["", *_returned(returned)]
    lines += ["", "## Filters"]
    for name, about, examples, returned in _filters():
        lines += ["", f"### {name}", "", *_about(about), ""]
        options = {("(input)" if key == "_input" else key): value for key, value in about["options"].items()}
        lines += _options(options)
        lines += ["", f"Returns a {returned['_value']['type']}: {_text(returned['_value']['description'])}"]
        lines += ["", "```yaml", examples.strip(), "```"]
    return "\n".join(lines) + "\n"


def pages() -> dict[pathlib.Path, str]:
    """Return path -> text of every generated page."""
    return {DOCS / "variables.md": variables_page(), DOCS / "modules.md": modules_page()}


def _modules() -> Iterator[tuple[str, dict[str, Any], str, dict[str, Any]]]:
    fragments = _constants(PLUGINS / "doc_fragments" / "attributes.py")
    for path in sorted((PLUGINS / "modules").glob("*.py")):
        blocks = _constants(path)
        about = yaml.safe_load(blocks["DOCUMENTATION"])
        for fragment in about.get("extends_documentation_fragment") or []:
            shared = yaml.safe_load(fragments[fragment.partition("attributes.")[2].upper() or "DOCUMENTATION"])
            about["attributes"] = {**shared["attributes"], **about.get("attributes", {})}
        yield path.stem, about, blocks["EXAMPLES"], yaml.safe_load(blocks.get("RETURN") or "{}")


def _filters() -> Iterator[tuple[str, dict[str, Any], str, dict[str, Any]]]:
    for path in sorted((PLUGINS / "filter").glob("*.yml")):
        blocks = yaml.safe_load(path.read_text())
        yield path.stem, blocks["DOCUMENTATION"], blocks["EXAMPLES"], blocks["RETURN"]


def _constants(path: pathlib.Path) -> dict[str, str]:
    """Return the texts that a Python file assigns to names, without running it."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            found[node.targets[0].id] = str(node.value.value)
    return found


def _about(about: Mapping[str, Any]) -> list[str]:
    return [f"{about['short_description']}.", "", *(f"- {_text(line)}" for line in _lines(about["description"]))]


def _attributes(about: Mapping[str, Any]) -> list[str]:
    named = {"check_mode": "Check mode", "diff_mode": "diff", "idempotent": "idempotent"}
    attributes = about.get("attributes") or {}
    told = [f"{word}: {attributes[name]['support']}" for name, word in named.items() if name in attributes]
    return [f"{', '.join(told)}."] if told else []


def _options(options: Mapping[str, Mapping[str, Any]], inside: str = "") -> list[str]:
    lines = [] if inside or not options else ["| Option | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        meaning = " ".join(_text(line) for line in _lines(option["description"]))
        if option.get("choices"):
            meaning += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
        default = "required" if option.get("required") else _shown(option.get("default"))
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        lines.append(f"| `{inside}{name}` | {kind} | {default} | {meaning} |")
        lines += _options(option.get("suboptions") or option.get("options") or {}, f"{inside}{name}.")
    return lines


def _returned(values: Mapping[str, Mapping[str, Any]], inside: str = "") -> list[str]:
    lines = [] if inside else ["| Returned | Type | When | Meaning |", "|---|---|---|---|"]
    for name, value in values.items():
        meaning = " ".join(_text(line) for line in _lines(value["description"]))
        when = _text(value.get("returned", ""))
        kind = value["type"] + (f" of {value['elements']}" if "elements" in value else "")
        lines.append(f"| `{inside}{name}` | {kind} | {when} | {meaning} |")
        lines += _returned(value.get("contains") or {}, f"{inside}{name}.")
    return lines


def _lines(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text


def _shown(value: Any) -> str:
    if value in (None, "", [], {}):
        return "empty"
    if isinstance(value, str) and " " in value:
        return value
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(text: str) -> str:
    """Turn ansible's markup into Markdown: names become code, modules and filters become links."""
    text = re.sub(r"M\(llmops\.vllm\.(\w+)\)", r"[\1](#\1)", " ".join(text.split()))
    text = re.sub(r"P\(llmops\.vllm\.(\w+)#filter\)", r"[\1](#\1)", text)
    text = re.sub(r"P\(llmops\.vllm\.(\w+)#role\)", r"[\1](../roles/\1/README.md)", text)
    text = re.sub(r"P\(([\w.]+)#\w+\)", r"`\1`", text)
    return re.sub(r"\b(?:C|O|V|RV|E)\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", text).replace("|", "\\|")


def main() -> int:
    """Rewrite every page that differs."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
