"""What a benchmark may measure, from where, and when it may not."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _fleet
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.plan import judge, key, plan

MODEL = {"llmops_model_name": "m", "llmops_model_source": "hf://a/m", "llmops_model_revision": "f" * 40}
HOSTS = {
    "gpu1": {"llmops_address": "192.0.2.21", "llmops_pool": "chat", "llmops_gpu_type": "h100", **MODEL},
    "gpu2": {"llmops_address": "192.0.2.22", "llmops_pool": "chat", **MODEL},
    "gpu3": {"llmops_address": "192.0.2.23", "llmops_pool": "short", "llmops_profile": "streaming", **MODEL},
    "mon1": {},
}
SERVERS = ["gpu1", "gpu2", "gpu3"]


def planned(hostvars=None, servers=tuple(SERVERS), **options):
    variables = hostvars or HOSTS
    given = {"pools": "chat", "target": "pool", "host": "", "recipe": {}, **options}
    return plan(_fleet.replicas(variables, servers), variables, list(servers), given)


def test_a_pool_is_measured_from_the_first_server_outside():
    found = planned()
    assert (found["problems"], found["host"]) == ([], "gpu3")
    (entry,) = found["entries"]
    assert (entry["pool"], entry["profile"], entry["gpu_type"], entry["gpus"]) == ("chat", "baseline", "h100", 1)
    assert entry["hosts"] == ["gpu1", "gpu2"] and entry["urls"]["gpu2/r0"] == "http://192.0.2.22:8000"
    assert planned(host="mon1")["host"] == "mon1"
    assert [entry["profile"] for entry in planned(pools=["chat", "short"], host="mon1")["entries"]] == [
        "baseline",
        "streaming",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pools": []}, "llmops_benchmark_pools is empty: name pools (chat, short)"),
        ({"pools": "chta"}, "llmops_benchmark_pools names chta, which is no pool: there are chat, short"),
        ({"pools": "chat, short"}, "every server carries a replica of the pools that are measured"),
        ({"target": "host"}, "llmops_benchmark_target is 'host': give pool or replica"),
        ({"host": "gpu2"}, "llmops_benchmark_host is gpu2, which serves pool chat and is measured"),
        ({"host": "gpu9"}, "llmops_benchmark_host is gpu9, which is no host of the inventory"),
        ({"recipe": {"requests": 0}}, "pool chat: recipe.requests is 0: give 1 or more"),
        ({"recipe": {"requests": 19000}}, "pool chat: 38000 requests, 32 at a time, for 2 replicas: at most 20000"),
    ],
)
def test_what_cannot_be_meant_is_a_problem(options, words):
    (problem,) = planned(**options)["problems"]
    assert problem.startswith(words)


def test_one_replica_needs_the_load_of_one():
    assert planned(recipe={"requests": 19000}, target="replica")["problems"] == []


def test_an_expectation_that_says_nothing_is_a_problem():
    variables = {**HOSTS, "gpu1": {**HOSTS["gpu1"], "llmops_benchmark_expected": {"baseline": {"speed": 1}}}}
    (problem,) = planned(variables)["problems"]
    assert problem.startswith("pool chat: llmops_benchmark_expected.baseline.speed is unknown")


# --- whether it may be now -------------------------------------------------------------------------------------------


def row(id, **changes):
    current = {"id": f"release-of-{id}", "env": "/opt/vllm/env/0.32.0-1a2b3c4d", "model_path": "/srv/llm-models/m/f"}
    told = {"id": id, "health": "ok", "reason": "", "running": 0, "waiting": 0, "version": "0.32.0"}
    told["revision"] = "6f6073b42301"
    return {**told, "releases": {"current": current}, **changes}


def seen(**changes):
    """What each server tells; a keyword names a host whose row differs."""
    return {host: {"replicas": [row(f"{host}/r0", **changes.get(host, {}))]} for host in SERVERS}


def status(drained=(), lease=None, out=()):
    rows = [
        {
            "id": f"{host}/r0",
            "administrative": "drained" if host in drained else "active",
            "in_rotation": host not in (*drained, *out),
        }
        for host in SERVERS
    ]
    return {"status": {"replicas": rows, "pools": [{"name": "chat", "lease": lease}, {"name": "short"}]}}


def judged(told=None, balancers=None, **options):
    return judge(planned(**options), told or seen(), balancers or {"lb1": status(), "lb2": status()})


def test_a_healthy_pool_may_be_measured():
    found = judged()
    assert (found["problems"], found["notes"], found["host"]) == ([], [], "gpu3")
    (entry,) = found["entries"]
    assert entry["measured"] == ["gpu1/r0", "gpu2/r0"] and entry["versions"] == ["0.32.0"]
    assert (entry["env"], entry["host"]) == ("/opt/vllm/env/0.32.0-1a2b3c4d", "gpu1") and "url" not in entry


def test_what_clients_do_meanwhile_is_noted():
    (note,) = judged(seen(gpu2={"running": 3, "waiting": 1}))["notes"]
    assert note == "pool chat: clients have 4 requests there; the figures include them"


@pytest.mark.parametrize(
    ("told", "balancers", "words"),
    [
        ({"gpu2": {"health": "down", "reason": "refused"}}, {}, "pool chat: gpu2/r0 is down: refused"),
        ({}, {"out": ["gpu1"]}, "pool chat: gpu1/r0 is not in rotation at every balancer"),
        ({}, {"drained": ["gpu1"]}, "pool chat: gpu1/r0 is not in rotation at every balancer"),
        ({}, {"lease": {"holder": "rollout x"}}, "pool chat: lb2 says that rollout x holds it: a rollout runs"),
        ({"gpu2": {"version": "0.33.0"}}, {}, "pool chat: it has 2 versions of vLLM (0.32.0, 0.33.0): finish"),
    ],
)
def test_a_pool_that_is_not_whole_is_left_alone(told, balancers, words):
    (problem,) = judged(seen(**told), {"lb1": status(), "lb2": status(**balancers)})["problems"]
    assert problem.startswith(words)


def test_revisions_that_differ_are_a_rollout_half_way_and_ids_of_releases_are_each_replicas_own():
    assert judged(seen())["problems"] == []
    (problem,) = judged(seen(gpu2={"revision": "aaaaaaaaaaaa"}))["problems"]
    assert problem == "pool chat: it has 2 revisions (6f6073b42301, aaaaaaaaaaaa): finish the rollout first"


def test_nothing_is_measured_when_nobody_knows():
    for balancers in ({"lb1": {"msg": "unreachable"}}, {"lb1": None}):
        assert judged(balancers=balancers)["problems"] == ["no balancer answers: whether a rollout runs is not known"]
    unreachable = {**seen(), "gpu2": {"msg": "timed out"}}
    assert judged(unreachable)["problems"] == ["pool chat: gpu2/r0 is unreachable"]


def test_one_replica_must_be_drained_at_every_balancer_and_idle():
    half = judged(balancers={"lb1": status(["gpu1"]), "lb2": status()}, target="replica")
    assert half["problems"] == ["pool chat: none of it is drained: -e llmops_target=gpu2/r0 for llmops.vllm.drain"]
    both = {"lb1": status(["gpu1"]), "lb2": status(["gpu1"])}
    (problem,) = judged(seen(gpu1={"running": 2}), both, target="replica")["problems"]
    assert problem == "pool chat: gpu1/r0 is drained, and still has 2 requests: wait until they end"


def test_a_drained_replica_is_measured_from_the_first_other_server():
    both = {"lb1": status(["gpu1"]), "lb2": status(["gpu1"])}
    found = judged(balancers=both, target="replica")
    (entry,) = found["entries"]
    assert (found["problems"], found["host"]) == ([], "gpu2")
    assert (entry["measured"], entry["url"]) == (["gpu1/r0"], "http://192.0.2.21:8000")
    given = judged(balancers=both, target="replica", host="gpu1")
    assert given["problems"] == [
        "llmops_benchmark_host is gpu1, which serves pool chat and is measured: it cannot be the client, too"
    ]
    alone = {name: copy.deepcopy(HOSTS[name]) for name in ("gpu1",)}
    only = judge(planned(alone, ("gpu1",), target="replica"), {"gpu1": seen()["gpu1"]}, both)
    assert only["problems"][0].startswith("there is no other server. One that is measured cannot be the client")


@pytest.mark.parametrize(
    ("clients", "pool", "found"),
    [
        ([{"key": "a"}], "chat", "a"),
        ([{"key": "a"}], "short", ""),
        ([{"key": "a"}, {"key": "b", "pool": "short"}], "short", "b"),
        ([{"key": "a"}, {"key": "b", "pool": "chat"}], "chat", "b"),
        ([], "chat", ""),
        (None, "chat", ""),
    ],
)
def test_a_key_leads_to_a_pool(clients, pool, found):
    assert key(clients, pool, ["chat", "short"]) == found
