# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check of an inventory found, for people and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .problem import Problem


@dataclass(frozen=True)
class Finding:
    """A problem and the hosts that have it; none where it is the fleet's."""

    hosts: tuple[str, ...]
    variable: str
    value: str
    message: str

    def __str__(self) -> str:
        where = f"{first_and_more(self.hosts)}: " if self.hosts else ""
        return f"{where}{self.variable} {self.message}"


@dataclass(frozen=True)
class Report:
    """What was counted, what is wrong, and what could not be judged from here."""

    hosts: int
    replicas: int
    pools: int
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return {
            "ok": self.ok,
            "hosts": self.hosts,
            "replicas": self.replicas,
            "pools": self.pools,
            "problems": [
                {"hosts": list(f.hosts), "variable": f.variable, "value": f.value, "message": f.message}
                for f in self.findings
            ],
            "not_checked": list(self.not_checked),
        }

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        counts = f"{_count(self.hosts, 'host')}, {_count(self.replicas, 'replica')}, {_count(self.pools, 'pool')}"
        shown = [f"Inventory: {counts}; {_count(len(self.findings), 'problem')}"]
        shown += [f"{number:3}. {finding}" for number, finding in enumerate(self.findings, 1)]
        if self.not_checked:
            shown += ["Not checked from here:", *(f"  -  {text}" for text in self.not_checked)]
        return shown


def findings(problems: Iterable[Problem], broken: Iterable[Problem] = ()) -> Iterator[Finding]:
    """Join what several hosts have in common; of two opinions on one value the first counts.

    ``broken`` are variables that could not be evaluated: what seems wrong because they are absent is left out.
    """
    broken = list(broken)
    unknown = {(problem.host, problem.variable) for problem in broken}
    unknown |= {("", variable) for _host, variable in unknown}
    judged: set[tuple[str, str, str]] = set()
    joined: dict[tuple[str, str, str], dict[str, None]] = {}
    known = (problem for problem in problems if (problem.host, _base(problem.variable)) not in unknown)
    for problem in [*broken, *known]:
        value = (problem.host, problem.variable, problem.value)
        if value in judged and problem.value:
            continue
        judged.add(value)
        hosts = joined.setdefault((problem.variable, problem.value, problem.message), {})
        if problem.host:
            hosts[problem.host] = None
    for (variable, shown, message), hosts in joined.items():
        yield Finding(tuple(hosts), variable, shown, message)


def first_and_more(hosts: Sequence[str]) -> str:
    """Return the first of some hosts, and how many there are besides."""
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]} and {len(hosts) - 1} more"


def _base(variable: str) -> str:
    return re.split(r"[.\[ ]", variable, maxsplit=1)[0]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
