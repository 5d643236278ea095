# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a whole inventory: all that its variables tell, before any host is asked."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import (
    _check_balancer,
    _check_capacity,
    _check_certificate,
    _check_flags,
    _check_hosts,
    _check_keys,
    _check_pools,
    _check_server,
    _check_variables,
    _flags,
    _fleet,
)
from ._fleet_report import Report, findings
from ._problem import Problem
from ._vllm_settings import addresses, settings

# Where a variable of a role is not set, its default is a variable of the collection: that one is to mend.
_ORIGIN = {
    "vllm_api_keys": "llmops_backend_keys",
    "llm_balancer_backend_keys": "llmops_backend_keys",
    "llm_balancer_client_keys": "llmops_client_keys",
}


@dataclass(frozen=True)
class Inventory:
    """What is judged: evaluated variables by host, groups, and what lies beside them on the controller.

    ``specs``: options of the roles' argument specs, by variable; empty: types are not judged.
    ``certificate``: for a balancer, ``certificate_pem`` and ``key_pem``, and where community.crypto could read them
    its facts ``certificate`` and ``private_key``; None where the files are not at hand.
    ``model_config``: for a replica, the parsed ``config.json`` of its model, None where it is not at hand; absent: none
    is read.
    """

    hostvars: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Sequence[str]]
    server_group: str = "llm_servers"
    balancer_group: str = "llm_balancers"
    monitor_group: str = "llm_monitors"
    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    certificate: Callable[[str], Mapping[str, Any] | None] = lambda host: None
    model_config: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None

    def members(self, group: str) -> list[str]:
        """Return the hosts of a group, none where there is no such group."""
        return list(self.groups.get(group, []))

    @property
    def servers(self) -> list[str]:
        """The hosts that carry replicas."""
        return self.members(self.server_group)

    @property
    def balancers(self) -> list[str]:
        """The hosts that take client traffic."""
        return self.members(self.balancer_group)


def check(inventory: Inventory, now: datetime.datetime, min_days: int = 0, broken: Sequence[Problem] = ()) -> Report:
    """Judge the inventory at ``now`` (UTC).

    Keys and certificates that end within ``min_days`` days are problems. ``broken`` are variables that could not be
    evaluated: they are part of the report.
    """
    fleet = _fleet.replicas(inventory.hostvars, inventory.servers)
    return Report(
        hosts=len({*inventory.servers, *inventory.balancers}),
        replicas=len(fleet),
        pools=len(_fleet.pools(fleet)),
        findings=tuple(findings(_problems(inventory, fleet, now, min_days), broken)),
        not_checked=tuple(dict.fromkeys(_not_checked(inventory, fleet))),
    )


def messages(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    server_group: str = "llm_servers",
    balancer_group: str = "llm_balancers",
) -> list[str]:
    """Return, as lines for people, what the variables tell by themselves: no file is read, no type is judged."""
    inventory = Inventory(hostvars, groups, server_group=server_group, balancer_group=balancer_group)
    return [str(finding) for finding in check(inventory, datetime.datetime.now(datetime.timezone.utc)).findings]


def _problems(
    inventory: Inventory, fleet: Sequence[Mapping[str, Any]], now: datetime.datetime, min_days: int
) -> Iterator[Problem]:
    hostvars, servers, balancers = inventory.hostvars, inventory.servers, inventory.balancers
    judge = _check_variables.Judge(inventory.specs)
    of_types = [
        problem
        for host in {**dict.fromkeys(servers), **dict.fromkeys(balancers)}
        for problem in judge.problems(host, hostvars[host])
    ]
    # What has the wrong type cannot be judged further.
    unsound = {problem.host for problem in of_types}
    yield from _groups(inventory, fleet)
    yield from _check_hosts.problems(hostvars, servers, fleet)
    yield from _check_pools.problems(hostvars, inventory.groups, servers, inventory.server_group, fleet)
    for host in servers:
        if host not in unsound:
            yield from _originated(host, hostvars[host], _check_server.problems(_server_settings(inventory, host)))
    for replica in fleet:
        yield from _replica(inventory, replica)
    for host in balancers:
        if host not in unsound:
            yield from _balancer(inventory, host, fleet, now, min_days)
    if not unsound:
        yield from _strangers(inventory)
    yield from of_types


def _groups(inventory: Inventory, fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    group, balancers = inventory.server_group, inventory.balancers
    if not inventory.servers:
        also = f", so the {len(balancers)} host(s) of {inventory.balancer_group} have no replica to send to"
        yield Problem(
            "", "llmops_server_group", group,
            f"names the group {group!r}, which has no host{also if balancers else ''}: add server hosts to it, or name "
            "another group",
        )  # fmt: skip
    elif balancers and not fleet:
        text = "leaves no replica to the balancers: keep one, or take the hosts out of the balancers' group"
        yield Problem("", "vllm_state", "absent", text)


def _server_settings(inventory: Inventory, host: str) -> dict[str, Any]:
    variables = inventory.hostvars[host]
    reached_by = [*inventory.balancers, *inventory.members(inventory.monitor_group)]
    allowed = _fleet.setting(variables, "vllm_firewall_allowed", addresses(inventory.hostvars, reached_by))
    return {
        "api_keys": _accepted_keys(variables),
        "firewall": _fleet.setting(variables, "vllm_firewall", _fleet.DEFAULTS["vllm_firewall"]),
        "firewall_allowed": [*allowed, *_fleet.setting(variables, "vllm_firewall_extra", [])],
        "prefix": _fleet.setting(variables, "vllm_prefix", _fleet.DEFAULTS["vllm_prefix"]),
        "model_root": _fleet.setting(variables, "llm_model_root", _fleet.DEFAULTS["llm_model_root"]),
        "gpus": _fleet.number(variables, "vllm_gpus"),
        "version": _fleet.setting(variables, "vllm_version", _fleet.DEFAULTS["vllm_version"]),
    }


def _accepted_keys(variables: Mapping[str, Any]) -> Any:
    return _fleet.setting(variables, "vllm_api_keys", _fleet.setting(variables, "llmops_backend_keys", []))


def _sent_keys(variables: Mapping[str, Any]) -> Any:
    return _fleet.setting(variables, "llm_balancer_backend_keys", _fleet.setting(variables, "llmops_backend_keys", []))


def _replica(inventory: Inventory, replica: Mapping[str, Any]) -> Iterator[Problem]:
    if replica["profile"] not in _fleet.PROFILES:
        return  # told already
    flags = _fleet.setting(inventory.hostvars[replica["host"]], "vllm_flags", {})
    wrong = list(_check_flags.problems(replica, flags))
    yield from wrong
    if wrong or inventory.model_config is None:
        return
    config, named = inventory.model_config(replica), replica["model_config"]
    if config is None and named:
        text = (
            f"is {named}, which is no readable config.json: give a path that is absolute, below the directory of this "
            "run, or beside the inventory"
        )
        yield Problem(replica["host"], "llmops_model_config", named, text)
    elif config is not None:
        yield from _check_capacity.problems(settings([replica], flags=flags)[0], config)


def _balancer(
    inventory: Inventory, host: str, fleet: Sequence[Mapping[str, Any]], now: datetime.datetime, min_days: int
) -> Iterator[Problem]:
    variables = inventory.hostvars[host]
    derived = "llm_balancer_pools" not in variables
    told = _balancer_settings(variables, fleet)
    files = inventory.certificate(host)
    if files is not None:
        told |= files
    found = _check_balancer.problems(told, now.date(), min_days, pools_derived=derived)
    if "certificate" in told:
        stamp = now.strftime(_check_certificate.STAMP)
        name, certificate, key = told["server_name"], told["certificate"], told["private_key"]
        found += _check_certificate.problems(name, certificate, key, stamp, min_days)
    yield from _originated(host, variables, found)
    ports = {int(told[name]): name for name in ("port", "http_port", "status_port")}
    for replica in fleet:
        if replica["host"] == host and replica["port"] in ports:
            text = (
                f"is {replica['port']} for replica {replica['name']}, and the host is also a balancer, whose "
                f"llm_balancer_{ports[replica['port']]} is the same: change one of them"
            )
            yield Problem(host, "vllm_port", str(replica["port"]), text)


def _balancer_settings(variables: Mapping[str, Any], fleet: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    pools = _fleet.setting(variables, "llm_balancer_pools", _fleet.pools(fleet))
    told = {
        name: _fleet.setting(variables, f"llm_balancer_{name}", default)
        for name, default in _check_balancer.DEFAULTS.items()
    }
    default_pool = pools[0]["name"] if pools else ""
    clients = _fleet.setting(variables, "llmops_client_keys", [])
    return {
        **told,
        "pools": pools,
        "default_pool": _fleet.setting(variables, "llm_balancer_default_pool", default_pool),
        "client_keys": _fleet.setting(variables, "llm_balancer_client_keys", clients),
        "backend_keys": _sent_keys(variables),
    }


def _strangers(inventory: Inventory) -> Iterator[Problem]:
    """The key that a balancer sends must be one that every server accepts."""
    for host in inventory.balancers:
        sent = _sent_keys(inventory.hostvars[host])[:1]
        for server in inventory.servers if sent else []:
            accepted = _accepted_keys(inventory.hostvars[server])
            if sent[0] in accepted or any(_check_keys.backend_problems("", accepted)):
                continue
            text = (
                f"does not hold the first key that balancer {host} sends, so the host would answer it with 401: give "
                "servers all keys, and balancers the same list"
            )
            yield from _originated(server, inventory.hostvars[server], [Problem("", "vllm_api_keys", "", text)])


def _originated(host: str, variables: Mapping[str, Any], found: Iterable[Problem]) -> Iterator[Problem]:
    """Name the variable that the inventory sets: the fleet's own, without a host, where the role's is its default."""
    for problem in found:
        role_variable = next((name for name in _ORIGIN if problem.variable.startswith(name)), None)
        if role_variable is None or role_variable in variables:
            yield Problem(host, problem.variable, problem.value, problem.message)
        else:
            name = problem.variable.replace(role_variable, _ORIGIN[role_variable])
            yield Problem("", name, problem.value, problem.message)


def _not_checked(inventory: Inventory, fleet: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for replica in fleet:
        unknown = _flags.why_not(replica["version"])
        if unknown:
            yield f"{unknown}; the parser of the installed version judges them on the host"
        read = inventory.model_config
        if replica["model_name"] and not replica["model_config"] and read is not None and read(replica) is None:
            yield (
                f"whether {replica['model_name']} fits: its config.json is not at hand; name a copy in "
                "llmops_model_config"
            )
    for host in inventory.balancers:
        path = str(inventory.hostvars[host].get("llm_balancer_tls_certificate") or "")
        if path and inventory.certificate(host) is None:
            yield f"certificate and key of {host}: llm_balancer_tls_certificate or llm_balancer_tls_key is no file here"
