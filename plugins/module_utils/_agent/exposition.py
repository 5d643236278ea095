# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's metrics as a Prometheus text, made from what ``status`` tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Gauges, with their help; the samples are made below.
GAUGES = {
    "llmops_replica_in_rotation": "Whether the replica gets new requests from this balancer.",
    "llmops_replica_drained": "Whether an operator has taken the replica out.",
    "llmops_replica_health": "1 for the state of health that the agent measured, 0 for the others.",
    "llmops_replica_weight": "Share of a full replica that it gets, 0 to 1.",
    "llmops_replica_requests_in_flight": "Requests in flight from this balancer.",
    "llmops_pool_members": "Replicas of the pool.",
    "llmops_pool_in_rotation": "Replicas of the pool that get new requests.",
    "llmops_pool_panic": "Whether most of the pool looks bad, so that judgements are suspended.",
    "llmops_engine_alive": "Whether the engine of this balancer answers.",
    "llmops_engine_view_confirmed": "Whether the engine runs what the agent wants.",
    "llmops_balancer_may_hold_address": "Whether this balancer may hold the service's address.",
    "llmops_balancer_peer_reachable": "Whether the agent of the other balancer answers.",
    "llmops_agent_problems": "Problems that the agent tells about membership, state and engine.",
}

EVENTS = "llmops_agent_events_total"


def text(status: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """Return the text; ``counts`` are events of the log since the agent started."""
    lines: list[str] = []
    rows = list(_rows(status))
    for name, help_text in GAUGES.items():
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        lines += [f"{name}{braced(labels)} {float(value):g}" for family, labels, value in rows if family == name]
    lines += [f"# HELP {EVENTS} Lines of the agent's log, by event.", f"# TYPE {EVENTS} counter"]
    lines += [f"{EVENTS}{braced({'event': event})} {count}" for event, count in sorted(counts.items())]
    return "\n".join(lines) + "\n"


def _rows(status: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], Any]]:
    for replica in status["replicas"]:
        labels = {"replica": replica["id"], "pool": replica["pool"]}
        yield "llmops_replica_in_rotation", labels, replica["in_rotation"]
        yield "llmops_replica_drained", labels, replica["administrative"] == "drained"
        for health in ("up", "degraded", "down"):
            yield "llmops_replica_health", {**labels, "health": health}, replica["health"] == health
        yield "llmops_replica_weight", labels, replica["weight"]
        if replica["inflight"] is not None:
            yield "llmops_replica_requests_in_flight", labels, replica["inflight"]
    for pool in status["pools"]:
        labels = {"pool": pool["name"]}
        yield "llmops_pool_members", labels, pool["members"]
        yield "llmops_pool_in_rotation", labels, pool["in_rotation"]
        yield "llmops_pool_panic", labels, pool["panic"]
    yield "llmops_engine_alive", {}, status["engine"]["alive"]
    yield "llmops_engine_view_confirmed", {}, status["engine"]["confirmed"]
    yield "llmops_balancer_may_hold_address", {}, status["balancer"]["may_hold_address"]
    for peer in status["peers"]:
        yield "llmops_balancer_peer_reachable", {"peer": peer["name"]}, peer["reachable"]
    yield "llmops_agent_problems", {}, len(status["membership"]["problems"])


def braced(labels: Mapping[str, str]) -> str:
    """Return labels as they stand behind the name of a metric."""
    if not labels:
        return ""
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + pairs + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
