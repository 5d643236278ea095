"""Writes the table of variables into each role's README, from its ``meta/argument_specs.yml``.

``python -m tools.role_readme`` rewrites what stands between the markers; a test holds the pages equal to the specs.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import yaml

ROLES = pathlib.Path(__file__).resolve().parent.parent / "roles"
BEGIN, END = "<!-- variables: made by tools/role_readme.py -->", "<!-- /variables -->"


def options(role: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the options of the role's main entry point."""
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = spec["argument_specs"]["main"]["options"]
    return found


def _default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if "default" not in option:
        return "see `defaults/main.yml`"
    value = option["default"]
    if value in ("", [], {}):
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows(role: pathlib.Path) -> list[str]:
    """Return the lines of the table, its head included."""
    lines = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, option in options(role).items():
        text = option["description"]
        meaning = (" ".join(text) if isinstance(text, list) else text).replace("<", "&lt;")  # no tag of HTML
        lines.append(f"| `{name}` | {option['type']} | {_default(option)} | {meaning} |")
    return lines


def table(role: pathlib.Path) -> str:
    """Return the table, markers included."""
    return "\n".join([BEGIN, "", *rows(role), "", END])


def page(role: pathlib.Path) -> str:
    """Return the README as it should be."""
    before, _sep, rest = (role / "README.md").read_text().partition(BEGIN)
    return before + table(role) + rest.partition(END)[2]


def main() -> int:
    """Rewrite every README that differs."""
    for role in sorted(ROLES.iterdir()):
        if (role / "README.md").read_text() != page(role):
            (role / "README.md").write_text(page(role))
            print(f"wrote {role.name}/README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
