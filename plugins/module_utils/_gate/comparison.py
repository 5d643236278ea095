# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New against old: what each rule found, with its figures and sample sizes, and what follows from all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_least
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

WORSE, NOT_WORSE = "worse", "not_worse"
_LEAST = {"samples": 1, "ratio": 1}  # of limits; 0 for the others
NOT_COMPARED = "not_compared"  # its figures are told and decide nothing, such as the answers of two models


@dataclass(frozen=True)
class Check:
    """One comparison; ``words`` has the figures and the sample sizes."""

    name: str
    result: str
    new: float | None
    old: float | None
    samples_new: int
    samples_old: int
    words: str


@dataclass(frozen=True)
class Verdict:
    """All comparisons, and what follows from them.

    ``scarce`` is the result of one that had too few samples; ``needed`` how many are, where its words do not tell (0:
    they do).
    """

    checks: tuple[Check, ...]
    scarce: str
    needed: int = 0

    @property
    def verdict(self) -> str:
        """Worse when anything is; not worse only when everything could be compared."""
        results = [check.result for check in self.checks]
        return next((result for result in (WORSE, self.scarce) if result in results), NOT_WORSE)

    @property
    def words(self) -> str:
        """One line: the figures that decide, with their sample sizes."""
        told = dict.fromkeys(check.words for check in self.checks if check.result == self.verdict)
        needed = f"; needed are {self.needed}" if self.needed and self.verdict == self.scarce else ""
        return f"{self.verdict.replace('_', ' ')}: {'; '.join(told)}{needed}"

    def result(self) -> list[dict[str, Any]]:
        """As a module returns the comparisons."""
        return [{**asdict(check), "new": rounded(check.new), "old": rounded(check.old)} for check in self.checks]


def check_limits(limits: Any, error: type[LlmopsError]) -> None:
    """Raise the error for a field of these limits (a dataclass) that is below what it needs."""
    check_least(limits, error, {one.name: _LEAST.get(one.name, 0) for one in fields(limits)})


def rounded(value: float | None, digits: int = 6) -> float | None:
    """The value for people and records; None stays None."""
    return None if value is None else round(value, digits)
