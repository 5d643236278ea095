# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors that every module turns into ``fail_json``."""

from __future__ import annotations

from typing import Generic, TypeVar

OutcomeT = TypeVar("OutcomeT")


class LlmopsError(Exception):
    """What went wrong in words for an operator: the address or variable, the deed, the mend."""


class Unfulfilled(LlmopsError, Generic[OutcomeT]):
    """Not all that was wished could be brought about; ``outcome`` says what was done and seen."""

    def __init__(self, message: str, outcome: OutcomeT) -> None:
        super().__init__(message)
        self.outcome = outcome
