# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the inventory of a fleet, as far as its variables tell: no host is asked."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _fleet
from ._revision import revision_problem, source_problem

BACKEND_KEY_CHARACTERS = 32
CLIENT_KEY_CHARACTERS = 16
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_POOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the host (or empty for the fleet), the variable, its value, and what to do."""

    host: str
    variable: str
    value: str
    message: str

    def __str__(self) -> str:
        where = f"{self.host}: " if self.host else ""
        return f"{where}{self.variable} {self.message}"


def messages(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    server_group: str = "llm_servers",
    balancer_group: str = "llm_balancers",
) -> list[str]:
    """Return the problems as lines for people, each once."""
    found = problems(hostvars, groups, server_group=server_group, balancer_group=balancer_group)
    return list(dict.fromkeys(str(problem) for problem in found))


def problems(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    *,
    server_group: str = "llm_servers",
    balancer_group: str = "llm_balancers",
) -> list[Problem]:
    """Return all that is wrong, the fleet's own problems first, then host by host in the order of the inventory."""
    servers = list(groups.get(server_group, []))
    balancers = list(groups.get(balancer_group, []))
    found = list(_empty_groups(servers, balancers, server_group, balancer_group))
    for host in servers:
        found += _host_values(host, hostvars[host])
        found += _entries(host, hostvars[host])
    fleet = _fleet.replicas(hostvars, servers)
    if servers and not fleet and balancers:
        text = "leaves no replica to the balancers: keep one, or take the hosts out of the balancers' group"
        found.append(Problem("", "vllm_state", "absent", text))
    for host in servers:
        found += _same_on_one_host(host, [replica for replica in fleet if replica["host"] == host])
    found += _same_address(fleet)
    for replica in fleet:
        found += _replica(replica, hostvars[replica["host"]])
    found += _pools(_fleet.pools(fleet))
    found += _accidental_pools(hostvars, groups, servers, server_group)
    found += _backend_keys(hostvars, [*servers, *balancers])
    found += _client_keys(hostvars, balancers)
    return found


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _empty_groups(
    servers: Sequence[str], balancers: Sequence[str], server_group: str, balancer_group: str
) -> Iterator[Problem]:
    if not servers:
        also = f", so the {len(balancers)} host(s) of {balancer_group} have no replica to send to" if balancers else ""
        yield Problem(
            "", "llmops_server_group", server_group,
            f"names the group {server_group!r}, which has no host{also}: add server hosts to it, or name another group",
        )  # fmt: skip


def _host_values(host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    numbers: dict[str, tuple[Callable[[int], bool], str]] = {
        "vllm_gpus": (lambda n: n >= 0, "0 (CPU) or the number of GPUs"),
        "vllm_tensor_parallel_size": (lambda n: n >= 1, "1 or more"),
        "vllm_port": (lambda n: 1024 <= n <= 65535, "a port from 1024 to 65535"),
    }
    for name, (good, wanted) in numbers.items():
        value = _fleet.setting(variables, name, _fleet.DEFAULTS[name])
        parsed = _fleet.as_int(value)
        if parsed is None or not good(parsed):
            yield Problem(host, name, repr(value), f"is {value!r}: give {wanted}")
    replicas = _fleet.setting(variables, "vllm_replicas", [])
    if not isinstance(replicas, list) or not all(isinstance(entry, Mapping) for entry in replicas):
        yield Problem(
            host, "vllm_replicas", repr(replicas),
            f"is {replicas!r}: give a list of mappings, such as [{{name: r0, gpus: [0, 1]}}]",
        )  # fmt: skip
    flags = _fleet.setting(variables, "vllm_flags", {})
    if not isinstance(flags, Mapping):
        yield Problem(
            host, "vllm_flags", repr(flags), f"is {flags!r}: give a mapping of vLLM's long flag names to values"
        )
    gpus, size = _fleet.number(variables, "vllm_gpus"), _fleet.number(variables, "vllm_tensor_parallel_size")
    if not _fleet.setting(variables, "vllm_replicas", []) and gpus > 0 and size > gpus:
        yield Problem(
            host, "vllm_tensor_parallel_size", str(size),
            f"is {size}, but vllm_gpus is {gpus}: a replica cannot span more GPUs than the host has",
        )  # fmt: skip


def _entries(host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    for index, entry in enumerate(_fleet.entries(variables)):
        for key in entry:
            if key not in _fleet.REPLICA_KEYS:
                yield Problem(
                    host, f"vllm_replicas[{index}].{key}", repr(entry[key]),
                    f"is no setting of a replica{_suggest(key, _fleet.REPLICA_KEYS)}: "
                    f"known are {', '.join(_fleet.REPLICA_KEYS)}",
                )  # fmt: skip
        name = entry.get("name")
        if name is not None and not _NAME.fullmatch(str(name)):
            yield Problem(
                host, f"vllm_replicas[{index}].name", repr(name),
                f"is {name!r}: it becomes part of a unit's name, so use 1 to 32 of a-z, 0-9, '_' and '-'",
            )  # fmt: skip
        port = entry.get("port")
        if port is not None and not 1024 <= (_fleet.as_int(port) or 0) <= 65535:
            yield Problem(
                host, f"vllm_replicas[{index}].port", repr(port), f"is {port!r}: give a port from 1024 to 65535"
            )
        gpus = entry.get("gpus")
        if gpus is not None and not (isinstance(gpus, list) and all((_fleet.as_int(g) or 0) >= 0 for g in gpus)):
            yield Problem(
                host,
                f"vllm_replicas[{index}].gpus",
                repr(gpus),
                f"is {gpus!r}: give a list of GPU numbers, such as [0, 1]",
            )
        flags = entry.get("flags")
        if flags is not None and not isinstance(flags, Mapping):
            yield Problem(
                host, f"vllm_replicas[{index}].flags", repr(flags),
                f"is {flags!r}: give a mapping of vLLM's long flag names to values",
            )  # fmt: skip


def _same_on_one_host(host: str, found: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    owners: dict[tuple[str, Any], str] = {}
    for replica in found:
        claims = [("name", replica["name"]), ("port", replica["port"])]
        claims += [("gpus", gpu) for gpu in replica["gpus"]]
        for kind, value in claims:
            owner = owners.setdefault((kind, value), replica["name"])
            taken = kind == "name" and [r["name"] for r in found].count(value) > 1
            if owner != replica["name"] or taken:
                what = {"name": "name", "port": "port", "gpus": "GPU"}[kind]
                yield Problem(
                    host, f"vllm_replicas.{kind}", str(value),
                    f"gives {what} {value} to more than one replica ({owner} and {replica['name']}): "
                    f"give every replica of a host its own {what}",
                )  # fmt: skip


def _same_address(found: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    owners: dict[tuple[str, Any], str] = {}
    for replica in found:
        endpoint = (replica["address"], replica["port"])
        owner = owners.setdefault(endpoint, replica["host"])
        if owner != replica["host"]:
            yield Problem(
                replica["host"], "llmops_address", replica["address"],
                f"is {replica['address']!r}, and {owner} serves port {replica['port']} under the same address: "
                "give every host its own",
            )  # fmt: skip


def _replica(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    host, name = replica["host"], replica["name"]
    profile = replica["profile"]
    if profile not in _fleet.PROFILES:
        yield Problem(
            host, "llmops_profile", repr(profile),
            f"is {profile!r} for replica {name}{_suggest(profile, _fleet.PROFILES)}: "
            f"known profiles are {', '.join(_fleet.PROFILES)}",
        )  # fmt: skip
    if not _POOL.fullmatch(replica["pool"]):
        yield Problem(
            host, "llmops_pool", repr(replica["pool"]),
            f"is {replica['pool']!r} for replica {name}: use 1 to 48 letters, digits, '_' and '-'",
        )  # fmt: skip
    yield from _model(replica)
    count = _fleet.number(variables, "vllm_gpus")
    outside = [gpu for gpu in replica["gpus"] if isinstance(gpu, int) and gpu >= count]
    if outside and _fleet.setting(variables, "vllm_replicas", []):
        yield Problem(
            host, "vllm_replicas.gpus", str(outside),
            f"gives GPU {outside[0]} to replica {name}, but vllm_gpus is {count}: the host has GPUs 0 to {count - 1}",
        )  # fmt: skip
    if replica["gpus"] and replica["tensor_parallel_size"] != len(replica["gpus"]):
        yield Problem(
            host, "vllm_tensor_parallel_size", str(replica["tensor_parallel_size"]),
            f"is {replica['tensor_parallel_size']} for replica {name}, which has {len(replica['gpus'])} GPU(s) "
            f"{replica['gpus']}: give it as many GPUs as it is to use",
        )  # fmt: skip
    written = _fleet.setting(variables, "vllm_flags", {})
    flags = {**(written if isinstance(written, Mapping) else {}), **replica["flags"]}
    trust = next((flags[flag] for flag in flags if str(flag).replace("_", "-") == "trust-remote-code"), False)
    if trust and revision_problem("hf://", replica["model_revision"]) is not None:
        yield Problem(
            host, "vllm_flags.trust-remote-code", str(trust),
            f"lets replica {name} run code from the model repository, and llmops_model_revision "
            f"{replica['model_revision']!r} is no 40-character commit: pin the revision that you have read",
        )  # fmt: skip


def _model(replica: Mapping[str, Any]) -> Iterator[Problem]:
    host, name = replica["host"], replica["name"]
    missing = [key for key in ("model_name", "model_source", "model_revision") if not replica[key]]
    for key in missing:
        yield Problem(
            host,
            f"llmops_{key}",
            "",
            f"is not set for replica {name}: say which model it serves (see inventories/example)",
        )
    if missing:
        return
    wrong = source_problem(str(replica["model_source"]))
    if wrong:
        yield Problem(host, "llmops_model_source", str(replica["model_source"]), wrong)
        return
    wrong = revision_problem(str(replica["model_source"]), replica["model_revision"])
    if wrong:
        yield Problem(host, "llmops_model_revision", replica["model_revision"], wrong)


def _pools(found: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    words = {"model_name": "llmops_model_name", "model_source": "llmops_model_source", "profile": "llmops_profile"}
    for pool in found:
        for key, variable in words.items():
            values: dict[str, str] = {}
            for replica in pool["replicas"]:
                values.setdefault(str(replica[key]), replica["id"])
            if len(values) > 1:
                (first, at_first), (second, at_second) = list(values.items())[:2]
                yield Problem(
                    "", variable, second,
                    f"differs within pool {pool['name']!r}: {first!r} on {at_first}, {second!r} on {at_second}. "
                    "Replicas of a pool stand in for each other: give them the same, or another llmops_pool",
                )  # fmt: skip


def _accidental_pools(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    servers: Sequence[str],
    server_group: str,
) -> Iterator[Problem]:
    """A host in two groups whose other hosts belong to different pools: one group's variables silently won."""

    def pool_of(host: str) -> str:
        return str(_fleet.setting(hostvars[host], "llmops_pool", _fleet.DEFAULT_POOL))

    inner = {
        name: set(hosts) for name, hosts in groups.items()
        if name not in ("all", "ungrouped", server_group) and set(hosts) < set(servers)
    }  # fmt: skip
    for host in servers:
        if any("pool" in entry for entry in _fleet.entries(hostvars[host])):
            continue
        mine = sorted(name for name, hosts in inner.items() if host in hosts)
        for first, second in itertools.combinations(mine, 2):
            ours = {pool_of(other) for other in inner[first] - inner[second]}
            theirs = {pool_of(other) for other in inner[second] - inner[first]}
            if len(ours) == len(theirs) == 1 and ours != theirs:
                yield Problem(
                    host, "llmops_pool", pool_of(host),
                    f"is {pool_of(host)!r}, and the host is in group {first!r} with pool {ours.pop()!r} and in group "
                    f"{second!r} with pool {theirs.pop()!r}: take it out of one of them, or name the pool of each of "
                    "its replicas in vllm_replicas",
                )  # fmt: skip


def _backend_keys(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> Iterator[Problem]:
    for host in hosts:
        keys = _fleet.setting(hostvars[host], "llmops_backend_keys", [])
        if not isinstance(keys, list) or not keys:
            yield Problem(
                "", "llmops_backend_keys", "",
                f"is not set for {host}: give a list with one secret of at least {BACKEND_KEY_CHARACTERS} characters",
            )  # fmt: skip
            return
        short = [position for position, key in enumerate(keys) if len(str(key)) < BACKEND_KEY_CHARACTERS]
        if short:
            yield Problem(
                "", f"llmops_backend_keys[{short[0]}]", "",
                f"has {len(str(keys[short[0]]))} characters: use at least {BACKEND_KEY_CHARACTERS} random ones, "
                "such as `openssl rand -hex 32` prints",
            )  # fmt: skip
            return


def _client_keys(hostvars: Mapping[str, Mapping[str, Any]], balancers: Sequence[str]) -> Iterator[Problem]:
    for host in balancers[:1]:
        keys = _fleet.setting(hostvars[host], "llmops_client_keys", [])
        if not isinstance(keys, list) or not all(
            isinstance(key, Mapping) and {"name", "key"} <= set(key) for key in keys
        ):
            yield Problem("", "llmops_client_keys", "", "is not a list of {name, key}: see inventories/example")
            return
        if not keys:
            yield Problem(
                "", "llmops_client_keys", "", "is empty: no client could use the service; give a list of {name, key}"
            )
        seen: dict[str, str] = {}
        for entry in keys:
            owner = seen.setdefault(str(entry["key"]), str(entry["name"]))
            if owner != str(entry["name"]):
                yield Problem(
                    "",
                    "llmops_client_keys",
                    "",
                    f"gives the same key to {owner!r} and {entry['name']!r}: make one for each",
                )
            if len(str(entry["key"])) < CLIENT_KEY_CHARACTERS:
                yield Problem(
                    "", "llmops_client_keys", "",
                    f"has a key of {len(str(entry['key']))} characters for {entry['name']!r}: "
                    f"use at least {CLIENT_KEY_CHARACTERS}",
                )  # fmt: skip
