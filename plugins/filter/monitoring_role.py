# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role llm_monitoring. The logic is in ``module_utils``."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check
from ansible_collections.llmops.vllm.plugins.module_utils._check import monitors as check_monitors
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import foreign
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import host as monitor_host
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import services as monitors
from ansible_collections.llmops.vllm.plugins.plugin_utils._speaking import speaking


class FilterModule:
    """Names of the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "monitoring_foreign_problems": foreign.messages,
            "monitoring_host_problems": monitor_host.messages,
            "monitoring_probe_problems": fleet_check.probe_messages,
            "monitoring_problems": check_monitors.messages,
            "monitoring_secret_file": monitors.secret_file,
            "monitoring_secrets": monitors.secrets,
            "monitoring_service": monitors.service,
            "monitoring_users": speaking(monitors.users),
        }
