# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role llm_balancer hands to the agent: its configuration, and the membership of the pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._agent.model import API

_NUMBERS = (
    *("port", "status_port", "minimum", "slow_start", "retry_percent", "retry_burst"),
    *("reload_interval", "wedged_seconds", "wedged_restarts_per_hour"),
)


def config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config.json``: inventories also hold numbers as texts, milliseconds become seconds.

    ``members`` are all balancers; their agents listen on the same port.
    """
    milliseconds = {name: int(settings[f"{name}_ms"]) / 1000 for name in ("latency_degraded", "latency_eject")}
    return {
        "api": API,
        **{name: str(settings[name]) for name in ("name", "address", "engine")},
        "peers": [
            {"name": str(member["name"]), "address": str(member["address"]), "port": int(settings["port"])}
            for member in settings["members"]
            if member["name"] != settings["name"]
        ],
        **{name: int(settings[name]) for name in _NUMBERS if name in settings},
        "limits": {
            "completion_interval": int(settings["completion_interval"]),
            "max_out_percent": int(settings["max_out_percent"]),
            **milliseconds,
        },
    }


def membership(pools: Iterable[Mapping[str, Any]], remove_active: bool = False) -> dict[str, Any]:
    """Return the membership file of the inventory: every replica with its pool, address and model."""
    return {
        "version": 1,
        "writer": "site",
        "remove_active": remove_active,
        "replicas": [
            {
                "id": str(replica["id"]),
                "pool": str(pool["name"]),
                "address": str(replica["address"]),
                "port": int(replica["port"]),
                "model": str(replica.get("model_name") or pool.get("model_name") or ""),
            }
            for pool in pools
            for replica in pool["replicas"]
        ],
    }
