# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with what replicas serve, and with the pools that they form."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _fleet
from ._problem import Problem, suggest
from ._revision import revision_problem, source_problem

_POOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")


def problems(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    servers: Sequence[str],
    server_group: str,
    fleet: Sequence[Mapping[str, Any]],
) -> Iterator[Problem]:
    """Yield what is wrong with profiles, pools and models: replica by replica, then across the fleet."""
    for replica in fleet:
        yield from _replica(replica, hostvars[replica["host"]])
    yield from _pools(_fleet.pools(fleet))
    yield from _accidental_pools(hostvars, groups, servers, server_group)


def _replica(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    host, name = replica["host"], replica["name"]
    profile = replica["profile"]
    if profile not in _fleet.PROFILES:
        yield Problem(
            host, "llmops_profile", repr(profile),
            f"is {profile!r} for replica {name}{suggest(profile, _fleet.PROFILES)}: "
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
