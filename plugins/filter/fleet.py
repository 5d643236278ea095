# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as the inventory describes it: replicas, pools and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _fleet, _status
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import drain
from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check
from ansible_collections.llmops.vllm.plugins.module_utils._model import peers as model_peers
from ansible_collections.llmops.vllm.plugins.plugin_utils._specs import specs


def _problems(
    hostvars: Any, groups: Any, server_group: str = "llm_servers", balancer_group: str = "llm_balancers"
) -> list[str]:
    return fleet_check.messages(hostvars, groups, server_group, balancer_group, specs())


class FilterModule:
    """Filters over inventory variables; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "fleet_absent": _fleet.absent,
            "fleet_replicas": _fleet.replicas,
            "fleet_pools": _fleet.pools,
            "fleet_models": _fleet.models,
            "fleet_urls": _fleet.urls,
            "fleet_target": drain.targets,
            "drain_reached": drain.reached,
            "drain_outcome": drain.outcome,
            "drain_changes": drain.changes,
            "status_balancers": _status.balancers,
            "status_rows": _status.rows,
            "status_table": _status.table,
            "fleet_problems": _problems,
            "model_peers": model_peers.plan,
            "model_offers": model_peers.offers,
        }
