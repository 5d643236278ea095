# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What numbers among a module's options must be. ``options`` is an object that has them as attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._errors import LlmopsError


def check_least(options: Any, error: type[LlmopsError], least: Mapping[str, float]) -> None:
    """Raise the error for the first option that is below its least value."""
    for name, value in least.items():
        if getattr(options, name) < value:
            raise error(f"{name} is {getattr(options, name):g}, needed is {value:g} or more")


def check_ranges(options: Any, error: type[LlmopsError], ranges: Mapping[str, tuple[int, int]]) -> None:
    """Raise the error for the first option outside its range, whose ends belong to it."""
    for name, (least, most) in ranges.items():
        if not least <= getattr(options, name) <= most:
            raise error(f"{name} is {getattr(options, name)}: give {least} to {most}")


def check_seconds(options: Any, error: type[LlmopsError], names: Iterable[str]) -> None:
    """Raise the error for the first of these options that is 0 seconds or less."""
    for name in names:
        if getattr(options, name) <= 0:
            raise error(f"{name} is {getattr(options, name):g}: give seconds above 0")
