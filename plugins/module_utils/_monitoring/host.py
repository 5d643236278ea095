# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a monitoring host already: services that are not ours, ports that others hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._check.problem import Problem


def problems(
    host: str,
    parts: Iterable[Mapping[str, Any]],
    sockets: str,
    units: str,
    ours: Iterable[str],
    replace: bool = False,
) -> Iterator[Problem]:
    """Yield what stands in the way of the parts that are to be installed.

    ``parts`` are ``{name, unit, ports: {variable: port}}``; ``sockets`` is the output of ``ss -Hltnp``, ``units`` that
    of ``systemctl show`` for their units, ``ours`` the unit files that carry the role's mark. ``replace`` gives up
    services that are not ours.
    """
    ours = set(ours)
    known = {unit["Id"]: unit for unit in _units(units)}
    listeners = list(_listeners(sockets))
    for part in parts:
        unit = known.get(str(part["unit"]), {})
        path = unit.get("FragmentPath", "")
        if unit.get("ActiveState") == "active" and path not in ours and not replace:
            variable = f"llm_monitoring_{part['name']}_install_method"
            text = (
                f"would replace {part['unit']}, which runs on {host} by {path or 'no file'} and is not this role's: "
                "set it to none, and rules, targets and dashboards go into what is there, or give that service up with "
                "llm_monitoring_replace_foreign: true"
            )
            yield Problem(host, variable, path, text)
            continue
        # in some containers not even root is told whose a socket is
        own = ("", unit.get("MainPID")) if unit.get("ActiveState") == "active" else ()
        for name, port in part["ports"].items():
            for program in sorted({prog for held, prog, pid in listeners if held == int(port) and pid not in own}):
                text = f"is {port}, which {program} has on {host}: give another port, or stop that program"
                yield Problem(host, f"llm_monitoring_{name}", str(port), text)


def messages(*args: Any, **kwargs: Any) -> list[str]:
    """Return the problems as lines for people."""
    return [str(problem) for problem in problems(*args, **kwargs)]


def _units(text: str) -> Iterator[dict[str, str]]:
    for block in text.strip().split("\n\n"):
        pairs = (line.partition("=") for line in block.splitlines())
        unit = {key: value for key, _equals, value in pairs}
        if "Id" in unit:
            yield unit


def _listeners(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield port, program and process of each listening socket."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or not fields[3].rpartition(":")[2].isdigit():
            continue
        found = re.search(r'\(\("([^"]*)",pid=(\d+)', line)
        program, process = found.groups() if found else ("an unknown program", "")
        yield int(fields[3].rpartition(":")[2]), program, process
