# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of GPU tiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._gpu import tiers as gpu_tiers


def _gpu_tier(name: str) -> str:
    tier = gpu_tiers.named(name)
    return tier.name if tier else ""


class FilterModule:
    """Filters over GPU tiers; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "gpu_tier": _gpu_tier,
        }
