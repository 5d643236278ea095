# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator asks of a rollout, read from the variables ``llmops_rollout_*``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

ACTIONS = ("update", "rollback", "restart", "reboot")
Share = Union[int, float]  # a number of replicas, or a share of them: 0.25

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "")


class OptionError(LlmopsError):
    """A variable that cannot be meant; the text names it, its value and the mend."""


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    action: str = "update"
    pools: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    batches: tuple[Share, ...] = (1, 0.25, 1.0)
    min_healthy: Share | None = None  # None: all but a quarter of the pool, one at least
    allow_downtime: bool = False
    retry: bool = False
    derived: bool = False  # replicas are what a playbook found, and nobody named them

    def least(self, members: int) -> int:
        """The replicas of a pool of so many members that must stay in rotation."""
        if self.min_healthy is None:
            return members - max(1, members // 4)
        if isinstance(self.min_healthy, float):
            return -int(-self.min_healthy * members // 1)  # rounded up: a promise is kept in whole replicas
        return self.min_healthy


def options_from(action: str, given: Mapping[str, Any]) -> Options:
    """Read the variables, named without ``llmops_rollout_``; OptionError for the first one that cannot be meant."""
    if action not in ACTIONS:
        raise OptionError(f"__rollout_action is {action!r}: one of {', '.join(ACTIONS)} is wanted")
    least = given.get("min_healthy")
    return Options(
        action=action,
        pools=_names("pools", given.get("pools")),
        replicas=_names("replicas", given.get("replicas")),
        batches=_batches(given.get("batches")),
        min_healthy=None if least in (None, "") else _share("min_healthy", least, 0),
        allow_downtime=_flag("allow_downtime", given.get("allow_downtime")),
        retry=_flag("retry", given.get("retry")),
        derived=_flag("derived", given.get("derived")),
    )


def _names(name: str, value: Any) -> tuple[str, ...]:
    """A list, or a text with commas between, as -e gives it."""
    listed = value.split(",") if isinstance(value, str) else value or []
    if not isinstance(listed, Sequence):
        raise OptionError(f"llmops_rollout_{name} is {value!r}: a list is wanted, or a text with commas between")
    return tuple(word for item in listed if (word := str(item).strip()))


def _batches(value: Any) -> tuple[Share, ...]:
    if value in (None, "", []):
        return Options.batches
    listed = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    return tuple(_share("batches", item, 1) for item in listed)


def _share(name: str, value: Any, least: int) -> Share:
    text = str(value).strip()
    if re.fullmatch(r"\d+", text) and not isinstance(value, bool) and int(text) >= least:
        return int(text)
    if (match := re.fullmatch(r"(\d{1,3})\s*%", text)) and least <= int(match[1]) <= 100:
        return int(match[1]) / 100
    raise OptionError(
        f"llmops_rollout_{name} has {value!r}: a number of replicas from {least} on, or a share like '25%', is wanted"
    )


def _flag(name: str, value: Any) -> bool:
    text = str("" if value is None else value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise OptionError(f"llmops_rollout_{name} is {value!r}: true or false is wanted")
    return text in _TRUE
