# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as the inventory describes it: replicas and pools.

Everything here is computed from inventory variables alone, never from facts: a host that is down, or outside
``--limit``, is still a member of the fleet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

PROFILES = ("baseline", "long_context", "multi_turn", "streaming", "batch")

# What a server host gets that sets nothing; the defaults of the roles repeat them and a test holds both equal.
DEFAULTS: dict[str, Any] = {
    "vllm_gpus": 1,
    "vllm_tensor_parallel_size": 1,
    "vllm_port": 8000,
    "vllm_version": "0.32.0",
    "vllm_state": "present",
    "vllm_firewall": "nftables",
    "vllm_prefix": "/opt/vllm",
    "llm_model_root": "/srv/llm-models",
}
MAX_GPUS = 64  # of a host; beyond it a number is a slip, and no reason to make a million replicas
DEFAULT_POOL = "default"
DEFAULT_PROFILE = "baseline"

REPLICA_KEYS = (
    "name",
    "state",
    "pool",
    "model_name",
    "model_source",
    "model_revision",
    "model_config",
    "adapters",
    "profile",
    "gpus",
    "tensor_parallel_size",
    "port",
    "flags",
)

ADAPTER_KEYS = ("name", "source", "revision")

HostVars = Mapping[str, Any]


def setting(variables: HostVars, name: str, default: Any = None) -> Any:
    """Return an inventory variable, or the default where it is absent or null."""
    value = variables.get(name)
    return default if value is None else value


def as_int(value: Any) -> int | None:
    """Return the integer that a variable means (inventories also hold ``"8000"``), or None when it means none."""
    if isinstance(value, bool):
        return None
    try:
        return int(str(value).strip())
    except ValueError:
        return None


def as_float(value: Any) -> float | None:
    """Return the number that a variable means (inventories also hold ``"2.5"``), or None when it means none."""
    if isinstance(value, bool):
        return None
    try:
        found = float(str(value).strip())
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def number(variables: HostVars, name: str) -> int:
    """Return a numeric host variable, its default where it is no number (``problems`` names that)."""
    value = as_int(setting(variables, name, DEFAULTS[name]))
    return DEFAULTS[name] if value is None else value


def entries(variables: HostVars) -> list[dict[str, Any]]:
    """Return the host's replicas as the user wrote them, or those that follow from ``vllm_gpus``.

    Without ``vllm_replicas`` a host carries ``vllm_gpus / vllm_tensor_parallel_size`` equal replicas ``r0``, ``r1``
    ...; a host without GPUs (``vllm_gpus: 0``) carries one, which runs on the CPU.
    """
    written = setting(variables, "vllm_replicas", [])
    if isinstance(written, list) and written:
        return [dict(entry) for entry in written if isinstance(entry, Mapping)]
    size = max(1, number(variables, "vllm_tensor_parallel_size"))
    return [{} for _turn in range(min(MAX_GPUS, max(1, number(variables, "vllm_gpus") // size)))]


def host_replicas(host: str, variables: HostVars) -> list[dict[str, Any]]:
    """Return the replicas of one host, defaults filled in; those with ``state: absent`` are left out."""
    if setting(variables, "vllm_state", DEFAULTS["vllm_state"]) == "absent":
        return []
    size = number(variables, "vllm_tensor_parallel_size")
    has_gpus = number(variables, "vllm_gpus") > 0
    found, next_gpu = [], 0
    for index, entry in enumerate(entries(variables)):
        own_size = as_int(setting(entry, "tensor_parallel_size", size)) or size
        gpus = entry.get("gpus")
        if gpus is None:
            gpus = list(range(next_gpu, next_gpu + min(own_size, MAX_GPUS))) if has_gpus else []
        gpus = [gpu if as_int(gpu) is None else as_int(gpu) for gpu in gpus] if isinstance(gpus, list) else []
        next_gpu = max([next_gpu - 1, *[gpu for gpu in gpus if isinstance(gpu, int)]]) + 1
        if entry.get("state") == "absent":
            continue
        name = entry_name(index, entry)
        flags = entry.get("flags")
        model = {
            key: str(setting(entry, f"model_{key}", setting(variables, f"llmops_model_{key}", "")))
            for key in ("name", "source", "revision", "config")
        }
        found.append(
            {
                "id": f"{host}/{name}",
                "host": host,
                "name": name,
                "unit": f"vllm@{name}.service",
                "address": address(host, variables),
                "port": as_int(setting(entry, "port", number(variables, "vllm_port") + index)),
                "pool": str(setting(entry, "pool", setting(variables, "llmops_pool", DEFAULT_POOL))),
                **{f"model_{key}": value for key, value in model.items()},
                "adapters": _adapters(setting(entry, "adapters", setting(variables, "llmops_adapters", []))),
                "profile": setting(entry, "profile", setting(variables, "llmops_profile", DEFAULT_PROFILE)),
                "gpus": gpus,
                "tensor_parallel_size": own_size,
                "flags": dict(flags) if isinstance(flags, Mapping) else {},
                "version": str(setting(variables, "vllm_version", DEFAULTS["vllm_version"])),
            }
        )
    return found


def _adapters(written: Any) -> list[dict[str, str]]:
    """Return the adapters of a replica as texts; what is no mapping is left to ``problems``."""
    given = written if isinstance(written, list) else []
    return [
        {key: str(setting(entry, key, "")) for key in ADAPTER_KEYS} for entry in given if isinstance(entry, Mapping)
    ]


def absent(hostvars: Mapping[str, HostVars], hosts: Iterable[str]) -> list[str]:
    """Return the ids of replicas that the inventory says are to go, whether or not they are still there."""
    gone = []
    for host in hosts:
        variables = hostvars[host]
        everything = setting(variables, "vllm_state", DEFAULTS["vllm_state"]) == "absent"
        for index, entry in enumerate(entries(variables)):
            if everything or entry.get("state") == "absent":
                gone.append(f"{host}/{entry_name(index, entry)}")
    return gone


def entry_name(index: int, entry: HostVars) -> str:
    """Return the name of a host's replica: its own, or that of its place."""
    return str(setting(entry, "name", f"r{index}"))


def origin(variables: HostVars, replica: str, key: str) -> str:
    """Return the variable in which a host's replica got its ``pool``, ``profile`` or ``model_*``."""
    for index, entry in enumerate(entries(variables)):
        if entry_name(index, entry) == replica and entry.get(key) is not None:
            return f"vllm_replicas[{replica}].{key}"
    return f"llmops_{key}"


def address(host: str, variables: HostVars) -> str:
    """Return the private address under which balancers and monitors reach the host."""
    return str(setting(variables, "llmops_address", setting(variables, "ansible_host", host)))


def replicas(hostvars: Mapping[str, HostVars], hosts: Iterable[str]) -> list[dict[str, Any]]:
    """Return every replica of the hosts, in the order of the hosts and of their entries."""
    return [replica for host in hosts for replica in host_replicas(host, hostvars[host])]


def pools(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the pools in the order in which the replicas name them."""
    by_name: dict[str, dict[str, Any]] = {}
    for replica in found:
        pool = by_name.setdefault(
            replica["pool"],
            {
                "name": replica["pool"],
                "model_name": replica["model_name"],
                "profile": replica["profile"],
                "replicas": [],
            },
        )
        pool["replicas"].append(dict(replica))
    return list(by_name.values())


def models(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the models and adapters that replicas serve, each revision once, as ``{name, source, revision}``."""
    rows = []
    for replica in found:
        rows.append({key: str(replica[f"model_{key}"]) for key in ADAPTER_KEYS})
        rows += [dict(adapter) for adapter in replica.get("adapters", [])]
    return list({(row["name"], row["revision"]): row for row in rows}.values())


def urls(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return what the module ``vllm_info`` asks: ``{id, name, url}`` of each replica."""
    return [
        {"id": replica["id"], "name": replica["name"], "url": f"http://{replica['address']}:{replica['port']}"}
        for replica in found
    ]
