# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a host already: services that are not ours, ports that others hold."""

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
    role: str = "llm_monitoring",
) -> Iterator[Problem]:
    """Yield what stands in the way of the parts that are to be installed.

    ``parts`` are ``{name, unit, ports: {variable: port}, replaces: [unit]}``; ``sockets`` is the output of
    ``ss -Hltnp``, ``units`` that of ``systemctl show`` for their units, ``ours`` the unit files, or drop-ins, that the
    role made. ``replace`` gives up services that are not ours. Variables are those of the ``role``. What is ours of
    ``replaces`` leaves its port to the part.
    """
    ours = set(ours)
    known = {unit["Id"]: unit for unit in _units(units)}
    listeners = list(_listeners(sockets))
    for part in parts:
        unit = known.get(str(part["unit"]), {})
        path = unit.get("FragmentPath", "")
        variable = f"{role}_{part['name']}_install_method"
        if unit.get("ActiveState") == "active" and path not in ours and not replace:
            text = (
                f"would replace {part['unit']}, which runs on {host} by {path or 'no file'} and is not this role's: "
                "set it to none, and rules, targets and dashboards go into what is there, or give that service up with "
                f"{role}_replace_foreign: true"
            )
            yield Problem(host, variable, path, text)
            continue
        others = [known.get(name, {}) for name in part.get("replaces", [])]
        own_units = [unit, *(other for other in others if _files(other) & ours)]
        own = {each.get("MainPID") for each in own_units if each.get("ActiveState") == "active"}
        if own:  # in some containers not even root is told whose a socket is
            own.add("")
        for name, port in part["ports"].items():
            for program in sorted({prog for held, prog, pid in listeners if held == int(port) and pid not in own}):
                text = (
                    f"is {port}, which {program} has on {host}: give another port, stop that program, or keep it with "
                    f"{variable}: none"
                )
                yield Problem(host, f"{role}_{name}", str(port), text)


def messages(*args: Any, **kwargs: Any) -> list[str]:
    """Return the problems as lines for people."""
    return [str(problem) for problem in problems(*args, **kwargs)]


def _units(text: str) -> Iterator[dict[str, str]]:
    for block in text.strip().split("\n\n"):
        pairs = (line.partition("=") for line in block.splitlines())
        unit = {key: value for key, _equals, value in pairs}
        if "Id" in unit:
            yield unit


def _files(unit: Mapping[str, str]) -> set[str]:
    return {unit.get("FragmentPath", ""), *unit.get("DropInPaths", "").split()}


def _listeners(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield port, program and process of each listening socket."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or not fields[3].rpartition(":")[2].isdigit():
            continue
        found = re.search(r'\(\("([^"]*)",pid=(\d+)', line)
        program, process = found.groups() if found else ("an unknown program", "")
        yield int(fields[3].rpartition(":")[2]), program, process
