# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role llm_monitoring. The logic is in ``module_utils``."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils import _check_monitors, _monitor_host, _monitors
from ansible_collections.llmops.vllm.plugins.plugin_utils._speaking import speaking


class FilterModule:
    """Names of the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "monitoring_host_problems": _monitor_host.messages,
            "monitoring_problems": _check_monitors.messages,
            "monitoring_secret_file": _monitors.secret_file,
            "monitoring_secrets": _monitors.secrets,
            "monitoring_service": _monitors.service,
            "monitoring_users": speaking(_monitors.users),
        }
