# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What monitoring knows from the inventory: targets, prices, budgets, limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import targets as monitoring_targets
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import textfile as monitoring_textfile
from ansible_collections.llmops.vllm.plugins.plugin_utils._speaking import speaking


class FilterModule:
    """Filters over inventory variables; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "monitoring_targets": speaking(monitoring_targets.targets),
            "monitoring_textfile": speaking(monitoring_textfile.textfile),
        }
