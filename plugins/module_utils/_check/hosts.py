# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with single hosts of the inventory: numbers, replicas, and what two of them both claim."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import _fleet
from .problem import Problem, kind_of, shown, suggest

_FLAGS = "give a mapping of vLLM's long flag names to values"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def problems(
    hostvars: Mapping[str, Mapping[str, Any]], servers: Sequence[str], fleet: Sequence[Mapping[str, Any]]
) -> Iterator[Problem]:
    """Yield what is wrong with the numbers, the replicas and the addresses of server hosts, host by host."""
    for host in servers:
        own = [replica for replica in fleet if replica["host"] == host]
        yield from _host_values(host, hostvars[host])
        yield from _entries(host, hostvars[host])
        yield from _ports(host, own)
        yield from _same_on_one_host(host, own)
    yield from _same_address(fleet)


def exposed(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> Iterator[Problem]:
    """Yield hosts whose agents and exporters would listen on the internet, because nothing names another address."""
    for host in hosts:
        address = _fleet.address(host, hostvars[host])
        if _fleet.setting(hostvars[host], "llmops_address") is None and _is_of_the_internet(address):
            text = (
                f"is not set, and ansible_host is {address}, an address of the internet, on which agents and exporters "
                f"would listen: give the host's private address, or {address} where a firewall stands before it"
            )
            yield Problem(host, "llmops_address", "", text)


def _is_of_the_internet(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False  # a name tells nothing


def _host_values(host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    numbers: dict[str, tuple[Callable[[int], bool], str]] = {
        "vllm_gpus": (lambda n: 0 <= n <= _fleet.MAX_GPUS, f"0 (CPU) or the number of GPUs, {_fleet.MAX_GPUS} at most"),
        "vllm_tensor_parallel_size": (lambda n: 1 <= n <= _fleet.MAX_GPUS, f"1 to {_fleet.MAX_GPUS}"),
        "vllm_port": (lambda n: 1024 <= n <= 65535, "a port from 1024 to 65535"),
    }
    for name, (good, wanted) in numbers.items():
        value = _fleet.setting(variables, name, _fleet.DEFAULTS[name])
        parsed = _fleet.as_int(value)
        if parsed is None or not good(parsed):
            yield Problem(host, name, repr(value), f"{shown(name, value)}: give {wanted}")
    replicas = _fleet.setting(variables, "vllm_replicas", [])
    if not isinstance(replicas, list) or not all(isinstance(entry, Mapping) for entry in replicas):
        found = kind_of(replicas) if not isinstance(replicas, list) else "a list with other things"
        text = f"is {found}: give a list of mappings, such as [{{name: r0, gpus: [0, 1]}}]"
        yield Problem(host, "vllm_replicas", found, text)
    flags = _fleet.setting(variables, "vllm_flags", {})
    if not isinstance(flags, Mapping):
        yield Problem(host, "vllm_flags", kind_of(flags), f"is {kind_of(flags)}: {_FLAGS}")
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
                    host, f"vllm_replicas[{index}].{key}", "",
                    f"is no setting of a replica{suggest(key, _fleet.REPLICA_KEYS)}: "
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
        size = entry.get("tensor_parallel_size")
        if size is not None and (_fleet.as_int(size) or 0) < 1:
            where = f"vllm_replicas[{index}].tensor_parallel_size"
            yield Problem(host, where, repr(size), f"is {size!r}: give the number of GPUs that it spans, 1 or more")
        gpus = entry.get("gpus")
        if gpus is not None and not (isinstance(gpus, list) and all(_is_gpu(gpu) for gpu in gpus)):
            text = f"is {gpus!r}: give a list of GPU numbers, such as [0, 1]"
            yield Problem(host, f"vllm_replicas[{index}].gpus", repr(gpus), text)
        flags = entry.get("flags")
        if flags is not None and not isinstance(flags, Mapping):
            yield Problem(host, f"vllm_replicas[{index}].flags", kind_of(flags), f"is {kind_of(flags)}: {_FLAGS}")


def _is_gpu(value: Any) -> bool:
    number = _fleet.as_int(value)
    return number is not None and number >= 0


def _ports(host: str, found: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    beyond = [replica for replica in found if replica["port"] is not None and replica["port"] > 65535]
    if beyond and len(found) > 1:
        text = f"leaves replica {beyond[0]['name']} port {beyond[0]['port']}: begin lower, ports go to 65535"
        yield Problem(host, "vllm_port", str(found[0]["port"]), text)


def _same_on_one_host(host: str, found: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    owners: dict[tuple[str, Any], str] = {}
    for replica in found:
        claims = [("name", replica["name"]), ("port", replica["port"])]
        claims += [("gpus", gpu) for gpu in replica["gpus"] if isinstance(gpu, int)]
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
