# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with what replicas serve, and with the pools that they form."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import _fleet
from .._model.revision import revision_problem, source_problem
from .._vllm.settings import renamed
from .problem import Problem, suggest

_POOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")


def problems(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    servers: Sequence[str],
    pool_groups: Sequence[str],
    fleet: Sequence[Mapping[str, Any]],
) -> Iterator[Problem]:
    """Yield what is wrong with profiles, pools and models: replica by replica, then across the fleet.

    ``pool_groups`` are the groups whose variables name a pool.
    """
    found = [problem for replica in fleet for problem in _replica(replica, hostvars[replica["host"]])]
    yield from found
    wrong = {problem.variable for problem in found}
    yield from (problem for problem in _pools(_fleet.pools(fleet)) if problem.variable not in wrong)
    yield from _accidental_pools(hostvars, groups, servers, pool_groups)


def _replica(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    host, name = replica["host"], replica["name"]
    profile = replica["profile"]
    if profile not in _fleet.PROFILES:
        text = f"is {profile!r}{suggest(profile, _fleet.PROFILES)}: known profiles are {', '.join(_fleet.PROFILES)}"
        yield Problem(host, _fleet.origin(variables, name, "profile"), repr(profile), text)
    if not _POOL.fullmatch(replica["pool"]):
        text = f"is {replica['pool']!r}: use 1 to 48 letters, digits, '_' and '-'"
        yield Problem(host, _fleet.origin(variables, name, "pool"), repr(replica["pool"]), text)
    yield from _model(replica, variables)
    yield from _gpus(replica, variables)
    flags = _flags(replica, variables)
    if flags.get("trust-remote-code") and revision_problem("hf://", replica["model_revision"]) is not None:
        yield Problem(
            host, "vllm_flags.trust-remote-code", "True",
            f"lets replica {name} run code from the model repository, and llmops_model_revision "
            f"{replica['model_revision']!r} is no 40-character commit: pin the revision that you have read",
        )  # fmt: skip


def _flags(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    written = _fleet.setting(variables, "vllm_flags", {})
    merged = {**(written if isinstance(written, Mapping) else {}), **replica["flags"]}
    return dict(renamed(flag, value) for flag, value in merged.items())


def _gpus(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    host, name = replica["host"], replica["name"]
    count = _fleet.number(variables, "vllm_gpus")
    outside = [gpu for gpu in replica["gpus"] if isinstance(gpu, int) and gpu >= count]
    if outside and _fleet.setting(variables, "vllm_replicas", []):
        yield Problem(
            host, "vllm_replicas.gpus", str(outside),
            f"gives GPU {outside[0]} to replica {name}, but vllm_gpus is {count}: the host has GPUs 0 to {count - 1}",
        )  # fmt: skip
    flags = _flags(replica, variables)
    data_parallel = flags.get("data-parallel-size-local", flags.get("data-parallel-size"))
    ranks = {
        "tensor parallel size": replica["tensor_parallel_size"],
        "pipeline-parallel-size": _fleet.as_int(flags.get("pipeline-parallel-size")) or 1,
        "data-parallel-size": _fleet.as_int(data_parallel) or 1,
    }
    needed = math.prod(ranks.values())
    if replica["gpus"] and needed != len(replica["gpus"]):
        more = " x ".join(f"{what} {number}" for what, number in ranks.items() if number > 1)
        yield Problem(
            host, "vllm_tensor_parallel_size", str(replica["tensor_parallel_size"]),
            f"is {replica['tensor_parallel_size']} for replica {name}, which has {len(replica['gpus'])} GPU(s) "
            f"{replica['gpus']} and uses {needed} ({more or 'tensor parallel size 1'}): give it as many GPUs as it is "
            "to use (gpus of its entry in vllm_replicas), or change the size",
        )  # fmt: skip


def _model(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    host, source = replica["host"], replica["model_source"]

    def origin(key: str) -> str:
        return _fleet.origin(variables, replica["name"], key)

    missing = [key for key in ("model_name", "model_source", "model_revision") if not replica[key]]
    for key in missing:
        text = "is not set: say which model the host serves (see inventories/example)"
        yield Problem(host, origin(key), "", text)
    if missing:
        return
    wrong = source_problem(source)
    if wrong:
        yield Problem(host, origin("model_source"), _without_password(source), _without_password(wrong))
        return
    wrong = revision_problem(source, replica["model_revision"])
    if wrong:
        yield Problem(host, origin("model_revision"), replica["model_revision"], wrong)


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://...@", text)


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
    pool_groups: Sequence[str],
) -> Iterator[Problem]:
    """A host in two groups whose other hosts belong to different pools: one group's variables silently won."""

    def pool_of(host: str) -> str:
        return str(_fleet.setting(hostvars[host], "llmops_pool", _fleet.DEFAULT_POOL))

    inner = {name: set(groups[name]) for name in pool_groups if set(groups.get(name, [])) < set(servers)}
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
