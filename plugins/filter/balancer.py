# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role llm_balancer. The logic is in ``module_utils``."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils import (
    _balancer,
    _balancer_agent,
    _balancer_update,
    _check_balancer,
    _check_certificate,
)


class FilterModule:
    """Names of the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "balancer_agent_config": _balancer_agent.config,
            "balancer_certificate_problems": _check_certificate.messages,
            "balancer_exact_pattern": _balancer.exact_pattern,
            "balancer_interface": _balancer.interface,
            "balancer_members": _balancer.members,
            "balancer_membership": _balancer_agent.membership,
            "balancer_problems": _check_balancer.messages,
            "balancer_server_address": _balancer.server_address,
            "balancer_stale": _balancer_update.stale,
            "balancer_upgrades": _balancer_update.upgrades,
            "balancer_upstream_name": _balancer.upstream_name,
        }
