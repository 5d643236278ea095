# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing to mend in an inventory, in words for an operator."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Names of settings whose values are never shown; "max-num-batched-tokens" is none of them.
_SECRET = re.compile(
    r"(key|keys|token|password|passwd|secret|credentials|otlp[a-z_]*headers)$|(hf|hub)[-_]?tokens?$|^environment$", re.I
)


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the host (or empty for the fleet), the variable, its value, and what to do."""

    host: str
    variable: str
    value: str
    message: str

    def __str__(self) -> str:
        where = f"{self.host}: " if self.host else ""
        return f"{where}{self.variable} {self.message}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known word that is nearest, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def is_secret(name: str) -> bool:
    """Tell whether a setting of this name holds a secret."""
    return _SECRET.search(name) is not None


def shown(name: str, value: Any) -> str:
    """Return a value as a message shows it: ``is 'x'``; a secret not at all, a collection only by its kind."""
    if value is None or is_secret(name) or isinstance(value, (list, tuple, Mapping)):
        return f"is {kind_of(value)}"
    return f"is {value!r}"


def value_of(name: str, value: Any) -> str:
    """Return a value as the report holds it: a secret not at all, a collection, which may hold one, by its kind."""
    if is_secret(name):
        return ""
    return kind_of(value) if isinstance(value, (list, tuple, Mapping)) else repr(value)


def kind_of(value: Any) -> str:
    """Return what kind of value this is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else "a text"
