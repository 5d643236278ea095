# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What replicas run with, and who may reach them, computed on the controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._check import flags as check_flags
from ansible_collections.llmops.vllm.plugins.module_utils._check import server as check_server
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import settings as vllm_settings
from ansible_collections.llmops.vllm.plugins.plugin_utils._speaking import speaking


class FilterModule:
    """Filters of the role vllm; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "vllm_settings": speaking(vllm_settings.settings),
            "vllm_addresses": vllm_settings.addresses,
            "vllm_by_family": vllm_settings.by_family,
            "vllm_flag_problems": check_flags.messages,
            "vllm_problems": check_server.messages,
        }
