"""What monitoring knows from the inventory: targets, prices, limits, and every bad number with its words."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _fleet
from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check
from ansible_collections.llmops.vllm.plugins.module_utils._check import monitoring as check_monitoring
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import host as monitoring_host
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import limits as _limits
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import targets as monitoring_targets
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import textfile as monitoring_textfile

from tests import exposition

COMMIT = "6f6073b423013f6a7d4d9f39144961bfbfbc386b"
SERVER = {"llmops_model_name": "llama", "llmops_model_revision": COMMIT, "llmops_pool": "chat"}
PAID = {**SERVER, "llmops_price_usd_per_hour": 12}


def server(number: int, **variables: Any) -> dict[str, Any]:
    return {**SERVER, "ansible_host": f"192.0.2.{number}", **variables}


def samples(hosts: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Values by metric and, in the order of their names, the labels as one text."""
    found = exposition.samples(monitoring_textfile.textfile(hosts, list(hosts)))
    return {name: {_shown(labels): number for labels, number in own.items()} for name, own in found.items()}


def _shown(labels: exposition.Labels) -> str:
    return ",".join(f"{label}={value}" for label, value in sorted(labels))


def prices(hosts: dict[str, dict[str, Any]]) -> dict[tuple[str, str], float]:
    text = monitoring_textfile.textfile(hosts, list(hosts))
    found = exposition.samples(text)["llmops_replica_price_usd_per_hour"]
    return {(dict(labels).get("replica", ""), dict(labels)["pool"]): value for labels, value in found.items()}


def problems(hosts: dict[str, dict[str, Any]]) -> list[str]:
    fleet = _fleet.replicas(hosts, list(hosts))
    return [str(problem) for problem in check_monitoring.problems(hosts, list(hosts), fleet)]


def test_targets_of_a_fleet() -> None:
    hosts = {
        "g1": server(21, vllm_gpus=2, llmops_gpu_type="h100", llmops_commitment="spot"),
        "g2": server(22, vllm_gpus=0, llmops_profile="batch", vllm_port=9000),
        "lb1": {"llmops_address": "2001:db8::11", "llm_balancer_agent_port": 9999, "llmops_region": "eu"},
        "mon1": {"ansible_host": "192.0.2.31"},
    }
    found = monitoring_targets.targets(hosts, ["g1", "g2"], ["lb1"], [*hosts, "g1"], {"nodes": 9200})
    host = {"host": "g1", "gpu_type": "h100", "commitment": "spot"}
    served = {"pool": "chat", "model": "llama", "model_version": COMMIT}
    second = {"host": "g2", "replica": "g2/r0", **served, "profile": "batch"}
    of_balancer = {"host": "lb1", "region": "eu"}
    assert found == {
        "replicas": [
            {"targets": ["192.0.2.21:8000"], "labels": {**host, "replica": "g1/r0", **served, "profile": "baseline"}},
            {"targets": ["192.0.2.21:8001"], "labels": {**host, "replica": "g1/r1", **served, "profile": "baseline"}},
            {"targets": ["192.0.2.22:9000"], "labels": second},
        ],
        "agents": [{"targets": ["[2001:db8::11]:9999"], "labels": of_balancer}],
        "balancer_logs": [{"targets": ["[2001:db8::11]:3903"], "labels": of_balancer}],
        "nginx": [{"targets": ["[2001:db8::11]:9113"], "labels": of_balancer}],
        "nodes": [
            {"targets": ["192.0.2.21:9200"], "labels": host},
            {"targets": ["192.0.2.22:9200"], "labels": {"host": "g2"}},
            {"targets": ["[2001:db8::11]:9200"], "labels": of_balancer},
            {"targets": ["192.0.2.31:9200"], "labels": {"host": "mon1"}},
        ],
        "gpus": [{"targets": ["192.0.2.21:9400"], "labels": host}],
    }


def test_replica_that_is_to_go_is_no_target() -> None:
    hosts = {"g1": server(21, vllm_replicas=[{"state": "absent"}, {}]), "g2": server(22, vllm_state="absent")}
    found = monitoring_targets.targets(hosts, list(hosts), [], [])
    assert [target["targets"] for target in found["replicas"]] == [["192.0.2.21:8001"]]


EXPORTER_PORTS = {
    "llm_exporters_node_port": 1,
    "llm_exporters_dcgm_port": "2",
    "llm_exporters_nvidia_gpu_exporter_port": 3,
    "llm_exporters_nginx_port": 4,
    "llm_exporters_log_port": 5,
}


@pytest.mark.parametrize(
    ("variables", "ports", "expected"),
    [
        ({}, {}, {"nodes": 9100, "gpus": 9400, "nginx": 9113, "balancer_logs": 3903}),
        (EXPORTER_PORTS, {}, {"nodes": 1, "gpus": 2, "nginx": 4, "balancer_logs": 5}),
        (EXPORTER_PORTS, {"gpus": 7, "nodes": "8"}, {"nodes": 8, "gpus": 7, "nginx": 4, "balancer_logs": 5}),
        ({"llm_exporters_gpu": "nvidia_gpu_exporter"}, {}, {"gpus": 9835}),
        ({"llm_exporters_gpu": "nvidia_gpu_exporter", **EXPORTER_PORTS}, {}, {"gpus": 3}),
        ({"llm_exporters_gpu": "none"}, {"gpus": 7}, {"gpus": None}),
        ({"vllm_gpus": "0"}, {"gpus": 7}, {"gpus": None}),
        ({"vllm_gpus": 0, "llm_exporters_gpus": 2}, {}, {"gpus": 9400}),
        ({"vllm_gpus": 0, "llm_exporters_gpu": "dcgm"}, {}, {"gpus": 9400}),
        ({"llm_exporters_gpus": 0}, {}, {"gpus": None}),
        ({"llm_exporters_components": ["node"]}, {}, {"nodes": 9100, "gpus": None, "nginx": None}),
        ({"llm_exporters_components": ["gpu", "log"]}, {}, {"nodes": None, "gpus": 9400, "balancer_logs": 3903}),
        ({"llm_exporters_state": "absent"}, {}, {"nodes": None, "gpus": None, "nginx": None, "balancer_logs": None}),
        ({"llm_exporters_node_install_method": "none"}, {}, {"nodes": 9100}),
    ],
)  # fmt: skip
def test_exporters_are_asked_where_the_host_has_them(
    variables: dict[str, Any], ports: dict[str, int], expected: dict[str, int | None]
) -> None:
    hosts = {"h": server(21, **variables)}
    found = monitoring_targets.targets(hosts, ["h"], ["h"], ["h"], ports)
    asked = {kind: [f"192.0.2.21:{port}"] if port else [] for kind, port in expected.items()}
    assert {kind: [each for target in found[kind] for each in target["targets"]] for kind in expected} == asked


def test_exporter_on_a_host_that_would_have_none_is_asked() -> None:
    hosts = {"mon1": {"ansible_host": "192.0.2.31", "llm_exporters_components": ["gpu"]}}
    found = monitoring_targets.targets(hosts, [], [], ["mon1"])
    assert {kind: targets for kind, targets in found.items() if targets} == {
        "gpus": [{"targets": ["192.0.2.31:9400"], "labels": {"host": "mon1"}}]
    }


def test_exporters_are_asked_at_their_own_address() -> None:
    hosts = {"h": server(21, llm_exporters_address="198.51.100.7")}
    found = monitoring_targets.targets(hosts, ["h"], ["h"], ["h"])
    assert {kind: {target["targets"][0].rpartition(":")[0] for target in found[kind]} for kind in found} == {
        **dict.fromkeys(("replicas", "agents"), {"192.0.2.21"}),
        **dict.fromkeys(("balancer_logs", "nginx", "nodes", "gpus"), {"198.51.100.7"}),
    }


def test_exporter_of_gpus_that_is_none_is_refused() -> None:
    with pytest.raises(monitoring_targets.PortError, match=r"g1: llm_exporters_gpu is 'dcgmm' \(did you mean 'dcgm'"):
        monitoring_targets.targets({"g1": server(21, llm_exporters_gpu="dcgmm")}, ["g1"], [], [])


def test_port_of_no_target_is_refused() -> None:
    with pytest.raises(monitoring_targets.PortError, match=r"ports\.node is no port .*did you mean 'nodes'"):
        monitoring_targets.targets({}, [], [], [], {"node": 9100})


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {("g1/r0", "chat"): 12}),
        ({"vllm_gpus": 4}, {(f"g1/r{n}", "chat"): 3 for n in range(4)}),
        ({"vllm_gpus": 0}, {("g1/r0", "chat"): 12}),
        ({"vllm_gpus": 0, "vllm_replicas": [{}, {"pool": "b"}]}, {("g1/r0", "chat"): 6, ("g1/r1", "b"): 6}),
        # by GPUs, and those of nobody are paid, too
        (
            {"vllm_gpus": 4, "vllm_replicas": [{"gpus": [0, 1]}, {"gpus": [2], "pool": "b"}]},
            {("g1/r0", "chat"): 8, ("g1/r1", "b"): 4},
        ),
        ({"vllm_state": "absent"}, {("", "none"): 12}),
        ({"llmops_price_usd_per_hour": "2.5"}, {("g1/r0", "chat"): 2.5}),
        ({"llmops_price_usd_per_hour": 0}, {("g1/r0", "chat"): 0}),
    ],
)  # fmt: skip
def test_price_of_a_host_is_shared_by_its_replicas(
    variables: dict[str, Any], expected: dict[tuple[str, str], float]
) -> None:
    assert prices({"g1": {**PAID, **variables}}) == expected


def test_labels_of_a_price() -> None:
    host = {**PAID, "llmops_gpu_type": 'H"100', "llmops_region": "eu"}
    assert samples({"g1": host})["llmops_replica_price_usd_per_hour"] == {
        'gpu_type=H"100,host=g1,pool=chat,region=eu,replica=g1/r0': 12
    }


def test_numbers_of_fleet_pools_and_hosts() -> None:
    common = {"llmops_daily_budget_usd": 500, "llmops_monthly_budget_usd": 14000.5}
    chat = {"llmops_replicas_min": 1, "llmops_replicas_max": "4", "llmops_cost_target_usd_per_million_tokens": 2}
    hosts = {
        "g1": {**PAID, **common, **chat, "vllm_gpus": 2, "vllm_flags": {"gpu-memory-utilization": 0.8}},
        "g2": {**PAID, **common, "llmops_pool": "slow", "llmops_profile": "batch", "vllm_gpus": 0},
    }
    found = samples(hosts)
    assert found["llmops_budget_daily_usd"] == {"": 500}
    assert found["llmops_budget_monthly_usd"] == {"": 14000.5}
    assert found["llmops_target_usd_per_million_tokens"] == {"pool=chat": 2}
    assert found["llmops_pool_replicas_min"] == {"pool=chat": 1}
    assert found["llmops_pool_replicas_max"] == {"pool=chat": 4}
    assert found["llmops_replica_gpus"] == {
        "host=g1,pool=chat,replica=g1/r0": 1,
        "host=g1,pool=chat,replica=g1/r1": 1,
        "host=g2,pool=slow,replica=g2/r0": 0,
    }
    assert found["llmops_gpus_expected"] == {"host=g1": 2}
    assert found["llmops_gpu_memory_utilization_target"] == {"host=g1": 0.8}
    assert found["llmops_limit_ttft_p99_seconds"] == {"pool=chat": 1, "pool=slow": 20}
    assert found["llmops_slo_availability"] == {"pool=chat": 0.995, "pool=slow": 0.995}
    assert set(found) == set(monitoring_textfile.GAUGES)


@pytest.mark.parametrize("variables", [{"llm_exporters_gpu": "none"}, {"llm_exporters_components": ["node"]}])
def test_gpus_that_nobody_counts_are_not_missing(variables: dict[str, Any]) -> None:
    assert "llmops_gpus_expected" in samples({"g1": {**SERVER, "vllm_gpus": 2}})
    assert "llmops_gpus_expected" not in samples({"g1": {**SERVER, "vllm_gpus": 2, **variables}})


def test_what_is_not_set_is_not_told() -> None:
    found = set(samples({"g1": SERVER}))
    assert not [name for name in found if "usd" in name or "replicas" in name]
    assert len([name for name in found if name.startswith(("llmops_limit_", "llmops_slo_"))]) == len(_limits.DEFAULTS)


@pytest.mark.parametrize(
    ("given", "profile", "expected"),
    [
        ({}, "baseline", 60),
        ({}, "batch", 480),
        ({"defaults": {"e2e_p99_seconds": 30}}, "baseline", 30),
        ({"defaults": {"e2e_p99_seconds": 30}}, "batch", 480),
        ({"profiles": {"batch": {"e2e_p99_seconds": 90}}}, "batch", 90),
        ({"profiles": {"batch": {"e2e_p99_seconds": 90}}, "pools": {"chat": {"e2e_p99_seconds": "5"}}}, "batch", 5),
        ({"pools": {"other": {"e2e_p99_seconds": 5}}}, "baseline", 60),
        (None, "baseline", 60),
    ],
)
def test_limit_of_a_pool_wins_over_its_profile_and_that_over_defaults(
    given: Any, profile: str, expected: float
) -> None:
    assert _limits.limits({"llmops_limits": given}, "chat", profile)["e2e_p99_seconds"] == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"llmops_price_usd_per_hour": -1}, "llmops_price_usd_per_hour is -1: give the US dollars"),
        ({"llmops_price_usd_per_hour": "cheap"}, "llmops_price_usd_per_hour is 'cheap': give"),
        ({"llmops_price_usd_per_hour": float("nan")}, "llmops_price_usd_per_hour is nan: give"),
        ({"llmops_price_usd_per_hour": True}, "llmops_price_usd_per_hour is True: give"),
        ({"llmops_daily_budget_usd": 0}, "llmops_daily_budget_usd is 0: give US dollars above 0"),
        ({"llmops_monthly_budget_usd": []}, "llmops_monthly_budget_usd is a list: give US dollars above 0"),
        ({"llmops_replicas_min": 1.5}, "llmops_replicas_min is 1.5: give a whole number"),
        ({"llmops_replicas_max": 0}, "llmops_replicas_max is 0: give a whole number, 1 or more"),
        ({"llmops_replicas_min": 3, "llmops_replicas_max": 2}, "is 3, and llmops_replicas_max is 2"),
        ({"llmops_limits": [1]}, "llmops_limits is a list: give a mapping"),
        ({"llmops_limits": {"pool": {}}}, "llmops_limits.pool is no part of the limits (did you mean 'pools'?)"),
        ({"llmops_limits": {"pools": [1]}}, "llmops_limits.pools is a list: give a mapping"),
        ({"llmops_limits": {"pools": {"chatt": {}}}}, "names a pool that is not there (did you mean 'chat'?)"),
        ({"llmops_limits": {"profiles": {"bach": {}}}}, "names a profile that is not there (did you mean 'batch'?)"),
        ({"llmops_limits": {"pools": {"chat": 3}}}, "llmops_limits.pools.chat is a number: give a mapping"),
        ({"llmops_limits": {"defaults": {"ttft_p99": 1}}}, "ttft_p99 is no limit (did you mean 'ttft_p99_seconds'?)"),
        ({"llmops_limits": {"defaults": {"queue_seconds": 0}}}, "queue_seconds is 0: give seconds above 0"),
        ({"llmops_limits": {"defaults": {"slo_ttft": 99}}}, "slo_ttft is 99: give a share of 0.94 or more and below 1"),
        ({"llmops_limits": {"pools": {"chat": {"slo_availability": 0.9}}}}, "slo_availability is 0.9: give a share of"),
        ({"llmops_limits": {"defaults": {"error_ratio": 2}}}, "error_ratio is 2: give a share between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_number_is_told_and_no_text_is_made(variables: dict[str, Any], expected: str) -> None:
    hosts = {"g1": {**PAID, **variables}}
    found = problems(hosts)
    assert len(found) == 1 and found[0].startswith("g1: ") and expected in found[0], found
    with pytest.raises(monitoring_textfile.TextfileError) as told:
        monitoring_textfile.textfile(hosts, ["g1"])
    assert str(told.value) == found[0]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            {"llmops_cost_target_usd_per_million_tokens": 2}, {"llmops_cost_target_usd_per_million_tokens": 3.5},
            "llmops_cost_target_usd_per_million_tokens differs within pool 'chat': 2 on g1/r0, 3.5 on g2/r0; replicas",
        ),
        (
            {"llmops_replicas_min": 2}, {},
            "llmops_replicas_min differs within pool 'chat': 2 on g1/r0, nothing on g2/r0; replicas of a pool share",
        ),
        (
            {"llmops_daily_budget_usd": 100}, {"llmops_daily_budget_usd": 200, "llmops_pool": "other"},
            "llmops_daily_budget_usd differs: 100 on g1, 200 on g2; the whole fleet has one",
        ),
        (
            {"llmops_limits": {"pools": {"chat": {"ttft_p99_seconds": 2}}}}, {},
            "llmops_limits differs within pool 'chat'",
        ),
        (
            {}, {"llmops_price_usd_per_hour": None, "llmops_gpu_type": "a100"},
            "g2: llmops_price_usd_per_hour is not set, a host of the GPU type a100, though g1 has one: give what",
        ),
        (
            {"llmops_price_usd_per_hour": None}, {},
            "g1: llmops_price_usd_per_hour is not set, though g2 has one: give what",
        ),
    ],
)  # fmt: skip
def test_what_differs_where_it_must_not(first: dict[str, Any], second: dict[str, Any], expected: str) -> None:
    found = problems({"g1": {**PAID, **first}, "g2": {**PAID, **second}})
    assert len(found) == 1 and expected in found[0], found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"llmops_replicas_max": 2}, {"llmops_replicas_max": "2"}),
        ({"llmops_replicas_max": 2}, {"llmops_pool": "other"}),
        ({"llmops_price_usd_per_hour": 0}, {}),
        ({"llmops_limits": {"pools": {"chat": {"error_ratio": 0.01}}}}, {}),
    ],
)
def test_what_is_no_difference(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert problems({"g1": {**PAID, **first}, "g2": {**PAID, **second}}) == []


def test_a_budget_without_any_price() -> None:
    assert problems({"g1": {**SERVER, "llmops_daily_budget_usd": 100}}) == [
        "g1: llmops_price_usd_per_hour is not set, though llmops_daily_budget_usd is set: give what the host costs in "
        "an hour (0 is a price, too)"
    ]


def test_the_check_of_an_inventory_tells_it() -> None:
    host = {**PAID, "llmops_price_usd_per_hour": -3}
    told = fleet_check.messages({"g1": host}, {"llm_servers": ["g1"]})
    assert [line for line in told if "llmops_price_usd_per_hour is -3" in line]


# Ports of a host

_UNITS = "/etc/systemd/system"
_OURS = [f"{_UNITS}/llm-exporter-node.service", f"{_UNITS}/prometheus-node-exporter.service.d/llm.conf"]
_NODE = {
    "name": "node",
    "unit": "llm-exporter-node.service",
    "ports": {"node_port": 9100},
    "replaces": ["prometheus-node-exporter.service"],
}


def _unit(name: str, state: str = "active", process: int = 77, *, fragment: str = "", drop_ins: str = "") -> str:
    lines = {"MainPID": process, "Id": name, "ActiveState": state, "FragmentPath": fragment, "DropInPaths": drop_ins}
    return "".join(f"{key}={value}\n" for key, value in lines.items())


_OWN = _unit("llm-exporter-node.service", fragment=_OURS[0])
_OWN_LOOPING = _unit("llm-exporter-node.service", "activating", 0, fragment=_OURS[0])
_PACKAGE = _unit(
    "prometheus-node-exporter.service", fragment="/lib/systemd/system/prometheus-node-exporter.service",
    drop_ins=f"/etc/systemd/system/service.d/all.conf {_OURS[1]}",
)  # fmt: skip
_FOREIGN_PACKAGE = _unit(
    "prometheus-node-exporter.service", fragment="/lib/systemd/system/prometheus-node-exporter.service"
)
_HELD = 'LISTEN 0 4096 192.0.2.9:9100 0.0.0.0:* users:(("node_exporter",pid=77,fd=3))\n'
_HELD_HIDDEN = "LISTEN 0 4096 192.0.2.9:9100 0.0.0.0:*\n"


@pytest.mark.parametrize(
    ("sockets", "units", "holder"),
    [
        ("", "", ""),
        (_HELD.replace(":9100", ":9101"), "", ""),
        (_HELD, _OWN, ""),
        (_HELD, _PACKAGE, ""),
        (_HELD_HIDDEN, _OWN, ""),
        (_HELD_HIDDEN, _PACKAGE, ""),
        (_HELD, "", "node_exporter"),
        (_HELD, _OWN_LOOPING, "node_exporter"),
        (_HELD, _OWN.replace("=77", "=78"), "node_exporter"),
        (_HELD, _FOREIGN_PACKAGE, "node_exporter"),
        (_HELD_HIDDEN, _OWN_LOOPING, "an unknown program"),
        (_HELD_HIDDEN, f"{_OWN_LOOPING}\n{_FOREIGN_PACKAGE}", "an unknown program"),
    ],
)
def test_port_is_free_or_held_by_the_roles_own_units(sockets: str, units: str, holder: str) -> None:
    told = monitoring_host.messages("gpu1", [_NODE], sockets, units, _OURS, replace=True, role="llm_exporters")
    assert told == [
        f"gpu1: llm_exporters_node_port is 9100, which {program} has on gpu1: give another port, stop that program, or "
        "keep it with llm_exporters_node_install_method: none"
        for program in [holder] if program
    ]  # fmt: skip
