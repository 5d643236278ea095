"""Templates of a role as Ansible renders them, for tests without a host."""

from __future__ import annotations

import pathlib

import jinja2
from ansible.plugins.filter.core import comment


def environment(role: pathlib.Path) -> jinja2.Environment:
    """Return where the role's templates are rendered; a variable that is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(role / "templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    made.filters["comment"] = comment
    return made
