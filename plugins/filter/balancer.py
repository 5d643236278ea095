# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role llm_balancer. The logic is in ``module_utils``."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._balancer import agent as balancer_agent
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import names as balancer
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import update as balancer_update
from ansible_collections.llmops.vllm.plugins.module_utils._check import balancer as check_balancer
from ansible_collections.llmops.vllm.plugins.module_utils._check import certificate as check_certificate


class FilterModule:
    """Names of the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "balancer_agent_config": balancer_agent.config,
            "balancer_certificate_problems": check_certificate.messages,
            "balancer_exact_pattern": balancer.exact_pattern,
            "balancer_interface": balancer.interface,
            "balancer_members": balancer.members,
            "balancer_membership": balancer_agent.membership,
            "balancer_problems": check_balancer.messages,
            "balancer_server_address": balancer.server_address,
            "balancer_stale": balancer_update.stale,
            "balancer_upgrades": balancer_update.upgrades,
            "balancer_upstream_name": balancer.upstream_name,
        }
