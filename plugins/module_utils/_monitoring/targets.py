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

PORTS = {"nodes": 9100, "gpus": 9400, "nginx": 9113, "balancer_logs": 3903}
# Every target of the host has them.
HOST_LABELS = {
    "gpu_type": "llmops_gpu_type",
    "region": "llmops_region",
    "provider": "llmops_provider",
    "commitment": "llmops_commitment",
}

Target = dict[str, Any]


class PortError(LlmopsError):
    """A port of something that is no target."""


def targets(
    hostvars: Mapping[str, Mapping[str, Any]],
    servers: Iterable[str],
    balancers: Iterable[str],
    hosts: Iterable[str],
    ports: Mapping[str, int] | None = None,
) -> dict[str, list[Target]]:
    """Return the targets by kind, each in the form ``{targets: ["address:port"], labels: {...}}``.

    ``hosts`` are all that have a node exporter; ``ports`` wins over ``PORTS``.
    """
    for kind in ports or {}:
        if kind not in PORTS:
            raise PortError(f"ports.{kind} is no port of a target{suggest(kind, PORTS)}: known are {', '.join(PORTS)}")
    port = {**PORTS, **(ports or {})}

    def on(host: str, number: int) -> Target:
        return _target(_fleet.address(host, hostvars[host]), number, host_labels(host, hostvars[host]))

    servers, balancers = list(servers), list(balancers)
    with_gpus = [host for host in servers if _fleet.number(hostvars[host], "vllm_gpus") > 0]
    agent = "llm_balancer_agent_port"
    return {
        "replicas": [_replica(replica, hostvars[replica["host"]]) for replica in _fleet.replicas(hostvars, servers)],
        "agents": [
            on(host, int(_fleet.setting(hostvars[host], agent, BALANCER_DEFAULTS["agent_port"]))) for host in balancers
        ],
        "balancer_logs": [on(host, port["balancer_logs"]) for host in balancers],
        "nginx": [on(host, port["nginx"]) for host in balancers],
        "nodes": [on(host, port["nodes"]) for host in dict.fromkeys(hosts)],
        "gpus": [on(host, port["gpus"]) for host in with_gpus],
    }


def host_labels(host: str, variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that every target of the host has; empty ones are left out."""
    told = {label: _fleet.setting(variables, variable, "") for label, variable in HOST_LABELS.items()}
    return _filled({"host": host, **told})


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
