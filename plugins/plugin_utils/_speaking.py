# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of ours as ansible shows them: one line, and no traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError


def speaking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter, with our error turned into the one that ansible prints without a traceback."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except LlmopsError as error:
            raise AnsibleFilterError(str(error)) from error

    return wrapped
