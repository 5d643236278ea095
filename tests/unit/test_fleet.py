"""The fleet from inventory variables: replicas, pools, and every bad inventory with the words of its message."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _fleet
from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
COMMIT = "6f6073b423013f6a7d4d9f39144961bfbfbc386b"
LOCAL = {"llmops_model_source": "file:///srv/x", "llmops_model_revision": "v1"}
GOOD = {
    "llmops_model_name": "llama",
    "llmops_model_source": "hf://example/llama",
    "llmops_model_revision": COMMIT,
    "llmops_pool": "chat",
    "llmops_backend_keys": ["k" * 32],
    "llmops_client_keys": [{"name": "team-a", "key": "s" * 20}],
    "llm_balancer_tls_certificate": "files/llm.crt",
    "llm_balancer_tls_key": "files/llm.key",
}


def fleet(balancers: int = 1, **hosts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Host variables and groups: servers g1, g2 as given, plus balancers."""
    hosts = hosts or {"g1": {}}
    names = [f"lb{number}" for number in range(1, balancers + 1)]
    hostvars = {host: {**GOOD, **variables} for host, variables in hosts.items()}
    hostvars |= {name: {**GOOD, "llmops_address": f"192.0.2.{number}"} for number, name in enumerate(names, 101)}
    return hostvars, {"all": [*hosts, *names], "llm_servers": list(hosts), "llm_balancers": names}


def messages(*args: Any, **hosts: dict[str, Any]) -> list[str]:
    hostvars, groups = fleet(**hosts)
    return fleet_check.messages(hostvars, groups)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [("r0", 8000, [0])]),
        ({"vllm_gpus": 0}, [("r0", 8000, [])]),
        ({"vllm_gpus": "4", "vllm_tensor_parallel_size": "2"}, [("r0", 8000, [0, 1]), ("r1", 8001, [2, 3])]),
        ({"vllm_gpus": 2, "vllm_port": 9000}, [("r0", 9000, [0]), ("r1", 9001, [1])]),
        (
            {"vllm_gpus": 3, "vllm_replicas": [{"gpus": [1]}, {"name": "x", "port": 8100}]},
            [("r0", 8000, [1]), ("x", 8100, [2])],
        ),
        ({"vllm_gpus": 2, "vllm_replicas": [{"state": "absent"}, {"name": "b"}]}, [("b", 8001, [1])]),
        ({"vllm_state": "absent"}, []),
    ],
)  # fmt: skip
def test_replicas_of_a_host(variables: dict[str, Any], expected: list[tuple[str, int, list[int]]]) -> None:
    found = _fleet.host_replicas("g1", {**GOOD, **variables})
    assert [(replica["name"], replica["port"], replica["gpus"]) for replica in found] == expected


def test_replica_has_id_unit_and_address() -> None:
    hostvars, groups = fleet(
        g1={"llmops_address": "192.0.2.1", "ansible_host": "bastion"}, g2={"ansible_host": "192.0.2.2"}
    )
    found = _fleet.replicas(hostvars, groups["llm_servers"])
    assert [(r["id"], r["unit"], r["address"]) for r in found] == [
        ("g1/r0", "vllm@r0.service", "192.0.2.1"),
        ("g2/r0", "vllm@r0.service", "192.0.2.2"),
    ]


def test_pools_keep_the_order_of_the_inventory() -> None:
    hostvars, groups = fleet(g1={"llmops_pool": "b"}, g2={"llmops_pool": "a"}, g3={"llmops_pool": "b"})
    found = _fleet.pools(_fleet.replicas(hostvars, groups["llm_servers"]))
    assert [(pool["name"], [r["host"] for r in pool["replicas"]]) for pool in found] == [
        ("b", ["g1", "g3"]),
        ("a", ["g2"]),
    ]


def test_a_good_inventory_has_no_problem() -> None:
    assert messages() == []
    assert (
        messages(g1={"vllm_gpus": 8, "vllm_tensor_parallel_size": 2}, g2={"llmops_pool": "other", "vllm_gpus": 0}) == []
    )


BAD: dict[str, tuple[dict[str, dict[str, Any]], list[str]]] = {
    "two replicas on one port": (
        {"g1": {"vllm_gpus": 2, "vllm_replicas": [{"port": 8000}, {"port": 8000}]}},
        ["g1", "port 8000", "r0 and r1", "its own port"],
    ),
    "two replicas on one GPU": (
        {"g1": {"vllm_gpus": 2, "vllm_replicas": [{"gpus": [0]}, {"gpus": [0]}]}},
        ["g1", "GPU 0", "r0 and r1", "its own GPU"],
    ),
    "two replicas of one name": (
        {"g1": {"vllm_gpus": 2, "vllm_replicas": [{"name": "a"}, {"name": "a"}]}},
        ["g1", "name a", "more than one replica"],
    ),
    "GPU that the host does not have": (
        {"g1": {"vllm_gpus": 2, "vllm_replicas": [{"gpus": [2]}]}},
        ["g1", "GPU 2", "vllm_gpus is 2"],
    ),
    "tensor parallel exceeds the GPUs": (
        {"g1": {"vllm_gpus": 2, "vllm_tensor_parallel_size": 4}},
        ["vllm_tensor_parallel_size is 4", "vllm_gpus is 2"],
    ),
    "tensor parallel and GPUs of an entry differ": (
        {"g1": {"vllm_gpus": 4, "vllm_replicas": [{"gpus": [0, 1, 2], "tensor_parallel_size": 2}]}},
        ["vllm_tensor_parallel_size", "2", "3 GPU(s)"],
    ),
    "misspelt key of an entry": ({"g1": {"vllm_replicas": [{"prot": 8001}]}}, ["vllm_replicas[0].prot", "'port'"]),
    "unknown profile": (
        {"g1": {"llmops_profile": "long-context"}},
        ["llmops_profile", "'long-context'", "did you mean 'long_context'"],
    ),
    "wrong type": ({"g1": {"vllm_gpus": "two"}}, ["vllm_gpus", "'two'", "number of GPUs"]),
    "privileged port": ({"g1": {"vllm_port": 80}}, ["vllm_port", "80", "1024"]),
    "replicas that are no list": ({"g1": {"vllm_replicas": {"name": "a"}}}, ["vllm_replicas", "list of mappings"]),
    "flags that are no mapping": ({"g1": {"vllm_flags": "--max-num-seqs 5"}}, ["vllm_flags", "mapping"]),
    "revision that is not pinned": (
        {"g1": {"llmops_model_revision": "main"}},
        ["llmops_model_revision", "'main'", "40 hexadecimal digits"],
    ),
    "directory without a label": (
        {"g1": {"llmops_model_source": "file:///srv/x", "llmops_model_revision": "latest"}},
        ["llmops_model_revision", "'latest'", "label"],
    ),
    "source without scheme": ({"g1": {"llmops_model_source": "meta/llama"}}, ["llmops_model_source", "hf://"]),
    "relative directory": ({"g1": {"llmops_model_source": "file://x"}}, ["llmops_model_source", "absolute"]),
    "no model": ({"g1": {"llmops_model_name": None}}, ["llmops_model_name", "is not set"]),
    "two models in one pool": (
        {"g1": {}, "g2": {"llmops_model_name": "other"}},
        ["llmops_model_name", "pool 'chat'", "g1/r0", "g2/r0"],
    ),
    "remote code without a pinned revision": (
        {"g1": {**LOCAL, "vllm_flags": {"trust_remote_code": True}}},
        ["trust-remote-code", "'v1'", "40-character commit"],
    ),
    "same address twice": (
        {"g1": {"llmops_address": "192.0.2.9"}, "g2": {"llmops_address": "192.0.2.9"}},
        ["g2", "llmops_address", "192.0.2.9", "g1"],
    ),
    "short backend key": ({"g1": {"llmops_backend_keys": ["short"]}}, ["llmops_backend_keys[0]", "5 characters", "32"]),
    "no backend key": ({"g1": {"llmops_backend_keys": []}}, ["llmops_backend_keys", "is empty", "one secret"]),
    "all replicas absent": ({"g1": {"vllm_state": "absent"}}, ["no replica to the balancers"]),
    "name that is no unit": ({"g1": {"vllm_replicas": [{"name": "R 0"}]}}, ["vllm_replicas[0].name", "unit's name"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_inventory_names_variable_value_and_mend(case: str) -> None:
    hosts, words = BAD[case]
    found = messages(**hosts)
    assert len(found) == 1, found
    assert [word for word in words if word not in found[0]] == [], found[0]


def test_empty_server_group_and_balancers_without_replica() -> None:
    found = fleet_check.messages({"lb1": GOOD}, {"llm_servers": [], "llm_balancers": ["lb1"]})
    assert len(found) == 1
    assert "llmops_server_group" in found[0]
    assert "'llm_servers'" in found[0]
    assert "no replica" in found[0]


def test_host_in_two_pools_by_accident() -> None:
    hostvars, groups = fleet(g1={"llmops_pool": "a"}, g2={"llmops_pool": "b"}, g3={"llmops_pool": "b"})
    groups |= {"pool_a": ["g1", "g2"], "pool_b": ["g2", "g3"], "rack_1": ["g1", "g3"]}
    inventory = fleet_check.Inventory(hostvars, groups, pool_groups=["pool_a", "pool_b"])
    found = [str(finding) for finding in fleet_check.check(inventory, NOW).findings]
    assert len(found) == 1, found
    assert "g2: llmops_pool is 'b'" in found[0]
    assert "'pool_a' with pool 'a'" in found[0]


def test_a_host_may_carry_two_pools_on_purpose() -> None:
    entries = [{"pool": "a", "gpus": [0]}, {"pool": "b", "gpus": [1]}]
    hostvars, groups = fleet(
        g1={"llmops_pool": "a"}, g2={"vllm_gpus": 2, "vllm_replicas": entries}, g3={"llmops_pool": "b"}
    )
    groups |= {"pool_a": ["g1", "g2"], "pool_b": ["g2", "g3"]}
    inventory = fleet_check.Inventory(hostvars, groups, pool_groups=["pool_a", "pool_b"])
    assert fleet_check.check(inventory, NOW).findings == ()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], ["is empty"]),
        (["sk-only"], ["list of {name, key}"]),
        ([{"name": "a", "key": "s" * 20}, {"name": "b", "key": "s" * 20}], ["(b).key is also the key of a"]),
        ([{"name": "a", "key": "tiny"}], ["(a)", "4 characters"]),
    ],
)
def test_client_keys(keys: list[Any], words: list[str]) -> None:
    hostvars, groups = fleet()
    hostvars["lb1"]["llmops_client_keys"] = keys
    found = fleet_check.messages(hostvars, groups)
    assert len(found) == 1, found
    assert [word for word in words if word not in found[0]] == []
    assert "s" * 20 not in found[0], "a key must not be printed"


def test_two_keys_of_one_client_are_a_rotation() -> None:
    hostvars, groups = fleet()
    hostvars["lb1"]["llmops_client_keys"] = [{"name": "a", "key": "s" * 20}, {"name": "a", "key": "t" * 20}]
    assert fleet_check.messages(hostvars, groups) == []


def test_absent_replicas_are_named_by_entry_and_by_host():
    hostvars = {
        "gpu1": {"vllm_replicas": [{"name": "a"}, {"name": "b", "state": "absent"}]},
        "gpu2": {"vllm_state": "absent", "vllm_gpus": 2},
        "gpu3": {},
    }
    assert _fleet.absent(hostvars, hostvars) == ["gpu1/b", "gpu2/r0", "gpu2/r1"]


def test_adapters_of_a_host_or_of_a_replica_are_staged_with_its_model() -> None:
    ours = {"name": "support", "source": "hf://a/support", "revision": "c" * 40}
    entries = [{"name": "a", "gpus": [0]}, {"name": "b", "gpus": [1], "adapters": []}, {"name": "c", "adapters": ["x"]}]
    variables = {"llmops_model_name": "llama", "llmops_adapters": [ours], "vllm_replicas": entries}
    found = _fleet.replicas({"gpu1": variables}, ["gpu1"])
    assert [replica["adapters"] for replica in found] == [[ours], [], []]
    assert [row["name"] for row in _fleet.models(found)] == ["llama", "support"]
