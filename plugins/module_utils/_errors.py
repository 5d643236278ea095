# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error that every module turns into ``fail_json``."""

from __future__ import annotations


class LlmopsError(Exception):
    """What went wrong in words for an operator: the address or variable, the deed, the mend."""
