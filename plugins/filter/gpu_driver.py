# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role gpu_driver. The logic is in ``module_utils``."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._gpu import driver_decision as gpu_driver_decision


class FilterModule:
    """Names of the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "gpu_driver_decision": gpu_driver_decision.decision,
        }
