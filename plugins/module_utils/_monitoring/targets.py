# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus scrapes, as its file_sd reads it: addresses and labels from inventory variables alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _fleet
from .._balancer.names import server_address
from .._check.balancer import DEFAULTS as BALANCER_DEFAULTS
from .._check.problem import suggest
from .._errors import LlmopsError

# Component of the role llm_exporters that each kind of target is.
COMPONENTS = {"balancer_logs": "log", "nginx": "nginx", "nodes": "node", "gpus": "gpu"}
# Ports of its exporters, where a host sets none; a test holds them equal to the role's.
PORTS = {"node": 9100, "dcgm": 9400, "nvidia_gpu_exporter": 9835, "nginx": 9113, "log": 3903}
# Every target of the host has them.
HOST_LABELS = {
    "gpu_type": "llmops_gpu_type",
    "region": "llmops_region",
    "provider": "llmops_provider",
    "commitment": "llmops_commitment",
}

Target = dict[str, Any]


class PortError(LlmopsError):
    """A port of something that is no target, or no exporter."""


def targets(
    hostvars: Mapping[str, Mapping[str, Any]],
    servers: Iterable[str],
    balancers: Iterable[str],
    hosts: Iterable[str],
    ports: Mapping[str, int] | None = None,
) -> dict[str, list[Target]]:
    """Return the targets by kind, each in the form ``{targets: ["address:port"], labels: {...}}``.

    Exporters are where the role llm_exporters puts them: what a host does not set follows from ``servers``,
    ``balancers`` and ``hosts``, which are all that have a node exporter. ``ports`` wins over what hosts set.
    """
    ports = ports or {}
    for kind in ports:
        if kind not in COMPONENTS:
            known = ", ".join(COMPONENTS)
            raise PortError(f"ports.{kind} is no port of a target{suggest(kind, COMPONENTS)}: known are {known}")
    servers, balancers, hosts = list(servers), list(balancers), list(hosts)
    everyone = {host: hostvars[host] for host in [*servers, *balancers, *hosts]}

    def agent(host: str, variables: Mapping[str, Any]) -> Target:
        port = int(_fleet.setting(variables, "llm_balancer_agent_port", BALANCER_DEFAULTS["agent_port"]))
        return _target(_fleet.address(host, variables), port, host_labels(host, variables))

    def exporters(kind: str, usual: list[str]) -> list[Target]:
        found = []
        for host, variables in everyone.items():
            name = exporter(host, variables, COMPONENTS[kind], host in usual)
            if name:
                own = _fleet.setting(variables, f"llm_exporters_{name}_port", PORTS[name])
                address = _fleet.setting(variables, "llm_exporters_address", _fleet.address(host, variables))
                found.append(_target(str(address), int(ports.get(kind, own)), host_labels(host, variables)))
        return found

    return {
        "replicas": [_replica(replica, everyone[replica["host"]]) for replica in _fleet.replicas(everyone, servers)],
        "agents": [agent(host, everyone[host]) for host in balancers],
        "balancer_logs": exporters("balancer_logs", balancers),
        "nginx": exporters("nginx", balancers),
        "nodes": exporters("nodes", hosts),
        "gpus": exporters("gpus", servers),
    }


def host_labels(host: str, variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that every target of the host has; empty ones are left out."""
    told = {label: _fleet.setting(variables, variable, "") for label, variable in HOST_LABELS.items()}
    return _filled({"host": host, **told})


def exporter(host: str, variables: Mapping[str, Any], component: str, usual: bool) -> str:
    """Return the exporter that a host has of a component, as its variables name it; empty where it has none."""
    components = _fleet.setting(variables, "llm_exporters_components", [component] if usual else [])
    if component not in components or _fleet.setting(variables, "llm_exporters_state", "present") == "absent":
        return ""
    if component != "gpu":
        return component
    chosen = str(_fleet.setting(variables, "llm_exporters_gpu", "auto"))
    if chosen == "auto":
        gpus = _fleet.as_int(variables.get("llm_exporters_gpus"))
        chosen = "dcgm" if (_fleet.number(variables, "vllm_gpus") if gpus is None else gpus) > 0 else "none"
    known = ("dcgm", "nvidia_gpu_exporter", "none")
    if chosen not in known:
        text = f"llm_exporters_gpu is {chosen!r}{suggest(chosen, known)}: give auto, {', '.join(known)}"
        raise PortError(f"{host}: {text}")
    return "" if chosen == "none" else chosen


def _replica(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Target:
    own = {
        "replica": replica["id"],
        "pool": replica["pool"],
        "model": replica["model_name"],
        "model_version": replica["model_revision"],
        "profile": replica["profile"],
    }
    labels = {**host_labels(replica["host"], variables), **_filled(own)}
    return _target(replica["address"], replica["port"], labels)


def _filled(labels: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in labels.items() if str(value)}


def _target(address: str, port: int, labels: dict[str, str]) -> Target:
    return {"targets": [server_address(address, port)], "labels": labels}
