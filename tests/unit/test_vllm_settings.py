"""Flags and environment of a replica: precedence, names, what a CPU host leaves out, what the role owns."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _fleet
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.profiles import COMMON, PROFILES
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.settings import (
    OWNED,
    SettingsError,
    addresses,
    by_family,
    canonical,
    settings,
    url,
)

REVISION = "6f6073b423013f6a7d4d9f39144961bfbfbc386b"


def replica(**changes: Any) -> dict[str, Any]:
    base = {
        "id": "gpu1/r0", "host": "gpu1", "name": "r0", "unit": "vllm@r0.service", "address": "192.0.2.21",
        "port": 8000, "pool": "chat", "model_name": "llama", "model_source": "hf://a/b", "model_revision": REVISION,
        "profile": "baseline", "gpus": [2, 3], "tensor_parallel_size": 2, "flags": {}, "version": "0.32.0",
    }  # fmt: skip
    return {**base, **changes}


def one(options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return settings([replica(**changes)], **(options or {}))[0]


def test_role_says_address_model_names_and_gpus() -> None:
    found = one()
    assert found["settings"]["host"] == "192.0.2.21"
    assert found["settings"]["port"] == 8000
    assert found["settings"]["model"] == f"/srv/llm-models/llama/{REVISION}"
    assert found["settings"]["served-model-name"] == ["llama", "llama@6f6073b42301"]
    assert found["settings"]["tensor-parallel-size"] == 2
    assert found["environment"]["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert found["url"] == "http://192.0.2.21:8000"


def test_adapters_are_flags_so_another_revision_is_another_release() -> None:
    adapter = {"name": "support", "source": "hf://a/support", "revision": REVISION}
    found = one({"flags": {"max-lora-rank": 64}}, adapters=[adapter])["settings"]
    assert found["lora-modules"] == [f"support=/srv/llm-models/support/{REVISION}"]
    assert (found["enable-lora"], found["max-lora-rank"]) == (True, 64)
    assert "enable-lora" not in one(adapters=[])["settings"]


def test_nothing_is_fetched_once_it_is_staged() -> None:
    assert one()["environment"]["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("host", "entry", "wanted"),
    [
        ({}, {}, 120),
        ({"shutdown-timeout": 90}, {}, 90),
        ({"shutdown-timeout": 90}, {"shutdown_timeout": 30}, 30),
        ({"--shutdown-timeout": 90}, {}, 90),
        ({"shutdown-timeout": None}, {}, None),
        ({"shutdown-timeout": 90}, {"shutdown-timeout": None}, None),
        ({"shutdown-timeout": 0}, {}, 0),
    ],
)
def test_replica_wins_over_host_wins_over_profile(host: dict, entry: dict, wanted: int | None) -> None:
    found = one({"flags": host}, flags=entry)["settings"]
    assert found.get("shutdown-timeout") == wanted
    assert ("shutdown-timeout" in found) == (wanted is not None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"max_num_seqs": 4}, {"max-num-seqs": 4}),
        ({"--max-num-seqs": 4}, {"max-num-seqs": 4}),
        ({"no-enable-prefix-caching": True}, {"enable-prefix-caching": False}),
        ({"no_enable_prefix_caching": False}, {"enable-prefix-caching": True}),
        ({"max_num_seqs": 4, "max-num-seqs": 4}, {"max-num-seqs": 4}),
        ({"compilation-config": {"mode": 3}}, {"compilation-config": {"mode": 3}}),
    ],
)
def test_every_flag_has_one_name(written: dict, meant: dict) -> None:
    assert canonical(written, "vllm_flags") == meant


@pytest.mark.parametrize("name", ["disable-prefix-caching", "no-enable-prefix-caching"])
def test_negation_by_the_user_wins_over_the_profile(name: str) -> None:
    found = one({"flags": {name: True}}, profile="multi_turn")
    assert found["settings"].get("enable-prefix-caching") in (None, False)


def test_flag_given_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"vllm_flags.max-num-seqs is given twice \(4 and 5\): keep one"):
        canonical({"max_num_seqs": 4, "max-num-seqs": 5}, "vllm_flags")


@pytest.mark.parametrize("flag", OWNED)
def test_flags_of_the_role_are_refused_with_the_variable_to_use(flag: str) -> None:
    with pytest.raises(SettingsError) as told:
        one({"flags": {flag.replace("-", "_"): 1}})
    assert "vllm_flags" in str(told.value)
    assert OWNED[flag] in str(told.value)


def test_refusal_names_the_replica() -> None:
    with pytest.raises(SettingsError, match=r"vllm_replicas\[r0\].flags.port is set by the role"):
        one(flags={"port": 9})


def test_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="llmops_profile is 'fast': known profiles are baseline"):
        one(profile="fast")


def test_profiles_are_those_of_the_fleet() -> None:
    assert tuple(PROFILES) == _fleet.PROFILES


@pytest.mark.parametrize("name", PROFILES)
def test_every_flag_of_a_profile_has_a_reason(name: str) -> None:
    flags = [*COMMON, *PROFILES[name].flags]
    assert [flag.name for flag in flags if not flag.why.endswith(".")] == []
    assert len({flag.name for flag in flags}) == len(flags)
    assert not {flag.name for flag in flags} & set(OWNED)
    assert "shutdown-timeout" in {flag.name for flag in flags}


@pytest.mark.parametrize(
    ("profile", "dropped"),
    [
        ("baseline", {"gpu-memory-utilization"}),
        ("long_context", {"gpu-memory-utilization", "kv-cache-dtype"}),
        ("multi_turn", {"gpu-memory-utilization"}),
        ("streaming", {"gpu-memory-utilization"}),
        ("batch", {"gpu-memory-utilization"}),
    ],
)
def test_cpu_host_leaves_out_what_needs_a_gpu_and_says_so(profile: str, dropped: set[str]) -> None:
    found = one(profile=profile, gpus=[], tensor_parallel_size=1)
    assert {entry["flag"] for entry in found["dropped"]} == dropped
    assert all(entry["why"] for entry in found["dropped"])
    assert not dropped & set(found["settings"])
    assert "CUDA_VISIBLE_DEVICES" not in found["environment"]
    assert one(profile=profile)["dropped"] == []


def test_user_flag_stays_on_a_cpu_host() -> None:
    found = one({"flags": {"gpu-memory-utilization": 0.5}}, gpus=[])
    assert found["settings"]["gpu-memory-utilization"] == 0.5
    assert found["dropped"] == []


def test_threshold_above_the_models_length_is_left_out() -> None:
    found = one({"flags": {"max-model-len": 1024}}, profile="multi_turn")
    assert "long-prefill-token-threshold" not in found["settings"]
    assert [entry["flag"] for entry in found["dropped"]] == ["long-prefill-token-threshold"]


@pytest.mark.parametrize(
    ("profile", "flags", "limit"),
    [
        ("baseline", {}, None),
        ("batch", {}, None),
        ("multi_turn", {}, 256 + 64),
        ("multi_turn", {"max-num-seqs": 512}, 512 + 64),
        ("multi_turn", {"max-num-seqs": 8, "data-parallel-size": 2}, 16 + 64),
        ("multi_turn", {"max-num-seqs": None}, None),
        ("multi_turn", {"max-num-queued-reqs": 7}, 7),
        ("multi_turn", {"max-num-queued-reqs": None}, None),
    ],
)
def test_queue_limit_follows_the_batch_size(profile: str, flags: dict, limit: int | None) -> None:
    assert one({"flags": flags}, profile=profile)["settings"].get("max-num-queued-reqs") == limit


def test_environment_of_the_user_wins_and_null_removes() -> None:
    given = {"HF_HUB_OFFLINE": None, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": 90, "A": True}
    found = one({"environment": given})["environment"]
    assert "HF_HUB_OFFLINE" not in found
    assert found["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "90"
    assert found["A"] == "1"
    assert all(isinstance(value, str) for value in found.values())


def test_processes_of_a_replica_talk_over_loopback_only() -> None:
    found = one()["environment"]
    assert (found["VLLM_HOST_IP"], found["GLOO_SOCKET_IFNAME"], found["NCCL_SOCKET_IFNAME"]) == (
        "127.0.0.1",
        "lo",
        "lo",
    )


@pytest.mark.parametrize(
    ("listen", "address", "wanted"),
    [
        ("192.0.2.1", "192.0.2.1", "http://192.0.2.1:8000"),
        ("0.0.0.0", "192.0.2.1", "http://192.0.2.1:8000"),
        ("2001:db8::1", "2001:db8::1", "http://[2001:db8::1]:8000"),
    ],
)
def test_url_is_where_the_replica_listens(listen: str, address: str, wanted: str) -> None:
    assert url(listen, address, 8000) == wanted


def test_addresses_are_sorted_by_family() -> None:
    found = by_family(["192.0.2.11", "lb1", "2001:db8::1", "192.0.2.128/25", "192.0.2.11"])
    assert found == {"ipv4": ["192.0.2.11", "192.0.2.128/25"], "ipv6": ["2001:db8::1"], "names": ["lb1"]}


def test_address_of_a_host_comes_from_its_variables() -> None:
    hostvars = {"a": {"llmops_address": "192.0.2.1", "ansible_host": "x"}, "b": {"ansible_host": "192.0.2.2"}, "c": {}}
    assert addresses(hostvars, ["a", "b", "c", "a"]) == ["192.0.2.1", "192.0.2.2", "c"]
