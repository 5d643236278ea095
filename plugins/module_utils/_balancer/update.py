# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the update of a balancer concludes from what its tasks have seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def stale(
    services: Sequence[Mapping[str, Any]],
    ages: Iterable[Mapping[str, Any]],
    replaced: Sequence[Mapping[str, Any]],
    units: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return the services that run something older than what is installed; one that does not run is none of them.

    ``services`` have ``name``, ``pid`` (path) and ``files``. ``ages`` are the results of ``stat`` for those paths,
    ``replaced`` of counting replaced libraries, ``units`` of writing the unit in check mode, both in the order of
    ``services``.
    """
    # Of a pid file the time of writing counts: the process began then. A file is as new as its change time: its
    # modification time is when the package was built.
    times = {found["stat"]["path"]: found["stat"] for found in ages if found["stat"]["exists"]}
    wanted = []
    for number, service in enumerate(services):
        began = times.get(service["pid"])
        if began is None:
            continue
        newer = any(times[path]["ctime"] > began["mtime"] for path in service["files"] if path in times)
        libraries = str(replaced[number].get("stdout", "")).strip() not in ("", "0")
        unit = number < len(units) and bool(units[number].get("changed"))
        if newer or libraries or unit:
            wanted.append(str(service["name"]))
    return wanted


def upgrades(lines: Iterable[str]) -> list[str]:
    """Return ``package old -> new`` for the lines of ``apt-get --simulate`` that install something."""
    found = (re.match(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+)", line) for line in lines)
    return [f"{match[1]} {match[2] or '(new)'} -> {match[3]}" for match in found if match]
