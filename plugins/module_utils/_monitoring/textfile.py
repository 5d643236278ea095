# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory knows and no host can tell: prices, budgets, bounds and limits as metrics.

They stand in one file on the monitoring host, so that a host that is down keeps costing, and alerts compare with
numbers of the inventory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import _fleet
from .._check import monitoring as check_monitoring
from .._errors import LlmopsError
from .._vllm.settings import settings
from . import limits as _limits
from .exposition import Sample, text
from .targets import exporter, host_labels

GAUGES = {
    "llmops_replica_price_usd_per_hour": "US dollars per hour: the price of the host, shared by its replicas by GPUs.",
    "llmops_replica_gpus": "GPUs that the replica uses; 0 on the CPU.",
    "llmops_budget_daily_usd": "US dollars that the fleet may cost in a day.",
    "llmops_budget_monthly_usd": "US dollars that the fleet may cost in a month.",
    "llmops_target_usd_per_million_tokens": "US dollars that a million tokens of the pool, in and out, are to cost.",
    "llmops_pool_replicas_min": "Replicas that the pool must have.",
    "llmops_pool_replicas_max": "Replicas that the pool may have.",
    "llmops_gpus_expected": "GPUs that the host is to have.",
    "llmops_gpu_memory_utilization_target": "Largest share of a GPU's memory that a replica of the host reserves.",
    "llmops_limit_ttft_p99_seconds": "Limit of the 99th percentile of the time to the first token.",
    "llmops_limit_itl_p99_seconds": "Limit of the 99th percentile of the time between two tokens.",
    "llmops_limit_e2e_p99_seconds": "Limit of the 99th percentile of the time of a whole request.",
    "llmops_limit_error_ratio": "Limit of the share of requests that fail.",
    "llmops_limit_queue_seconds": "Limit of the 95th percentile of the time in the queue of a replica.",
    "llmops_slo_availability": "Share of requests that are to succeed.",
    "llmops_slo_ttft": "Share of requests whose first token is to come within the objective.",
}
# A host that carries no replica, or none any more, costs until it leaves the inventory.
NO_POOL = "none"


class TextfileError(LlmopsError):
    """The inventory holds numbers that cannot be meant."""


def textfile(hostvars: Mapping[str, Mapping[str, Any]], servers: Iterable[str]) -> str:
    """Return the text; TextfileError names all that is wrong with the variables behind it."""
    servers = list(servers)
    fleet = _fleet.replicas(hostvars, servers)
    wrong = list(check_monitoring.problems(hostvars, servers, fleet))
    if wrong:
        raise TextfileError("; ".join(str(problem) for problem in wrong))
    return text(GAUGES, _samples(hostvars, servers, fleet))


def _samples(
    hostvars: Mapping[str, Mapping[str, Any]], servers: list[str], fleet: list[dict[str, Any]]
) -> Iterator[Sample]:
    for host in servers:
        yield from _host(host, hostvars[host], [replica for replica in fleet if replica["host"] == host])
    for name in ("daily", "monthly"):
        found = (_fleet.as_float(hostvars[host].get(f"llmops_{name}_budget_usd")) for host in servers)
        yield f"llmops_budget_{name}_usd", {}, next((value for value in found if value is not None), None)
    for pool in _fleet.pools(fleet):
        yield from _pool(pool, hostvars[pool["replicas"][0]["host"]])


def _host(host: str, variables: Mapping[str, Any], replicas: list[dict[str, Any]]) -> Iterator[Sample]:
    price = _fleet.as_float(variables.get("llmops_price_usd_per_hour"))
    labels = host_labels(host, variables)
    if price is not None:
        # GPUs that no replica uses are paid by those that do: the sum is what the host costs.
        whole = sum(_share(replica) for replica in replicas)
        for replica in replicas:
            own = {**labels, "replica": replica["id"], "pool": replica["pool"]}
            yield "llmops_replica_price_usd_per_hour", own, price * _share(replica) / whole
        if not replicas:
            yield "llmops_replica_price_usd_per_hour", {**labels, "pool": NO_POOL}, price
    for replica in replicas:
        own = {"host": host, "replica": replica["id"], "pool": replica["pool"]}
        yield "llmops_replica_gpus", own, len(replica["gpus"])
    gpus = _fleet.number(variables, "vllm_gpus")
    # where nobody counts them, none is missing
    if gpus > 0 and exporter(host, variables, "gpu", usual=True):
        yield "llmops_gpus_expected", {"host": host}, gpus
    flags = _fleet.setting(variables, "vllm_flags", {})
    reserved = [one["settings"].get("gpu-memory-utilization") for one in settings(replicas, flags=flags)]
    known = [share for share in map(_fleet.as_float, reserved) if share is not None]
    yield "llmops_gpu_memory_utilization_target", {"host": host}, max(known) if known and gpus > 0 else None


def _share(replica: Mapping[str, Any]) -> int:
    """Return the parts of the host that a replica uses: its GPUs; on the CPU all have the same."""
    return len(replica["gpus"]) or 1


def _pool(pool: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Sample]:
    labels = {"pool": pool["name"]}
    for metric, variable in (
        ("llmops_target_usd_per_million_tokens", "llmops_cost_target_usd_per_million_tokens"),
        ("llmops_pool_replicas_min", "llmops_replicas_min"),
        ("llmops_pool_replicas_max", "llmops_replicas_max"),
    ):
        yield metric, labels, _fleet.as_float(variables.get(variable))
    for name, value in _limits.limits(variables, pool["name"], str(pool["profile"])).items():
        yield f"llmops_{name}" if name.startswith("slo_") else f"llmops_limit_{name}", labels, value
