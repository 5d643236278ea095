# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a whole inventory: all that its variables tell, before any host is asked."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _fleet
from .._balancer.names import members
from .._capacity.shape import CapacityError
from .._monitoring.services import service
from .._vllm import flags as _flags
from .._vllm.settings import addresses, settings
from . import address as check_address
from . import balancer as check_balancer
from . import capacity as check_capacity
from . import certificate as check_certificate
from . import flags as check_flags
from . import hosts as check_hosts
from . import keys as check_keys
from . import models as check_models
from . import monitoring as check_monitoring
from . import monitors as check_monitors
from . import pools as check_pools
from . import server as check_server
from . import variables as check_variables
from .problem import Problem
from .report import Report, findings

# Where a variable of a role is not set, its default is a variable of the collection: that one is to mend.
_ORIGIN = {
    "vllm_api_keys": "llmops_backend_keys",
    "llm_balancer_backend_keys": "llmops_backend_keys",
    "llm_balancer_client_keys": "llmops_client_keys",
    "llm_monitoring_backend_keys": "llmops_backend_keys",
    "llm_monitoring_service_key": "llmops_client_keys",
}
# Variables from which replicas and their endpoints follow: nothing is known of a host where one has no value.
PLACING = (
    "ansible_host",
    "llmops_address",
    "llmops_pool",
    "vllm_gpus",
    "vllm_port",
    "vllm_replicas",
    "vllm_state",
    "vllm_tensor_parallel_size",
)


@dataclass(frozen=True)
class Inventory:
    """What is judged: evaluated variables by host, groups, and what lies beside them on the controller.

    ``specs``: options of the roles' argument specs, by variable; empty: names and types are not judged.
    ``pool_groups``: the groups whose variables name a pool.
    ``certificate``: for a balancer, what is at hand of ``certificate_pem`` and ``key_pem``, and what community.crypto
    tells of them as ``certificate`` and ``private_key``.
    ``model_config``: for a replica, the parsed ``config.json`` of its model, None where it is not at hand; absent: none
    is read.
    """

    hostvars: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Sequence[str]]
    server_group: str = "llm_servers"
    balancer_group: str = "llm_balancers"
    monitor_group: str = "llm_monitors"
    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pool_groups: Sequence[str] = ()
    certificate: Callable[[str], Mapping[str, Any]] = lambda host: {}
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

    @property
    def hosts(self) -> list[str]:
        """All hosts of the fleet, each once."""
        return list(dict.fromkeys([*self.servers, *self.balancers, *self.members(self.monitor_group)]))


def check(
    inventory: Inventory,
    now: datetime.datetime,
    min_days: int = 0,
    broken: Sequence[Problem] = (),
    not_checked: Sequence[str] = (),
) -> Report:
    """Judge the inventory at ``now`` (UTC).

    Keys and certificates that end within ``min_days`` days are problems. ``broken`` are variables that could not be
    evaluated; they, and what else the reader could not know, become part of the report.
    """
    judge = check_variables.Judge(inventory.specs)
    of_types = [problem for host in inventory.hosts for problem in judge.types(host, inventory.hostvars[host])]
    of_names = [problem for host in inventory.hosts for problem in judge.names(host, inventory.hostvars[host])]
    placeless = {problem.host for problem in broken if problem.variable in PLACING}
    keyless = {problem.host for problem in broken if problem.variable in {*_ORIGIN, *_ORIGIN.values()}}
    sound = _Sound(inventory, {problem.host for problem in of_types}, placeless, keyless)
    found = [*_problems(sound, now, min_days), *of_types, *of_names]
    return Report(
        hosts=len({*inventory.servers, *inventory.balancers}),
        replicas=len(sound.fleet),
        pools=len(_fleet.pools(sound.fleet)),
        findings=tuple(findings(found, broken)),
        not_checked=tuple(dict.fromkeys([*not_checked, *_not_checked(sound)])),
    )


def messages(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    server_group: str = "llm_servers",
    balancer_group: str = "llm_balancers",
    specs: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Return, as lines for people, what the variables tell by themselves: no file is read."""
    inventory = Inventory(hostvars, groups, server_group, balancer_group, specs=specs or {})
    return [str(finding) for finding in check(inventory, datetime.datetime.now(datetime.timezone.utc)).findings]


class _Sound:
    """The part of an inventory that can be judged further: without hosts of which too much is unknown."""

    def __init__(self, inventory: Inventory, mistyped: set[str], placeless: set[str], keyless: set[str]) -> None:
        self.inventory = inventory
        self.hostvars = inventory.hostvars
        self.placed = not placeless  # whether every pool and address is known
        self.servers = [host for host in inventory.servers if host not in mistyped | placeless]
        self.balancers = [host for host in inventory.balancers if host not in mistyped]
        self.monitors = [host for host in inventory.members(inventory.monitor_group) if host not in mistyped]
        self.keyless = keyless  # keys of these hosts could not be evaluated
        # A host with a slip still carries its replicas; one without places has none to speak of.
        self.carriers = [host for host in inventory.servers if host not in placeless]
        self.fleet = _fleet.replicas(inventory.hostvars, self.carriers)
        self.not_understood: list[str] = []  # files that were at hand and told nothing

    def is_sound(self, replica: Mapping[str, Any]) -> bool:
        """Tell whether the settings of a replica can be computed."""
        return replica["host"] in self.servers and replica["port"] is not None


def _problems(sound: _Sound, now: datetime.datetime, min_days: int) -> Iterator[Problem]:
    inventory, hostvars, fleet = sound.inventory, sound.hostvars, sound.fleet
    yield from _groups(inventory, fleet)
    yield from check_hosts.problems(hostvars, sound.carriers, fleet)
    yield from check_hosts.exposed(hostvars, inventory.hosts)
    yield from check_pools.problems(hostvars, inventory.groups, sound.carriers, inventory.pool_groups, fleet)
    yield from check_models.problems(hostvars, fleet)
    yield from check_monitoring.problems(hostvars, sound.carriers, fleet)
    for host in sound.servers:
        yield from _originated(inventory, host, check_server.problems(_server_settings(sound, host)))
    for replica in fleet:
        if sound.is_sound(replica):
            yield from _replica(sound, replica)
    for host in sound.balancers:
        yield from _balancer_problems(sound, host, now, min_days)
    yield from check_address.differing({host: _address_settings(hostvars[host]) for host in sound.balancers})
    yield from _strangers(sound)
    yield from _probes(sound)


def _groups(inventory: Inventory, fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    group, balancers = inventory.server_group, inventory.balancers
    owners: dict[str, str] = {}
    for host in balancers:
        address = _fleet.address(host, inventory.hostvars[host])
        if owners.setdefault(address, host) != host:
            text = f"is {address!r}, as that of balancer {owners[address]}: give every host its own"
            yield Problem(host, "llmops_address", address, text)
    if not inventory.servers:
        also = f", so the {len(balancers)} host(s) of {inventory.balancer_group} have no replica to send to"
        yield Problem(
            "", "llmops_server_group", group,
            f"names the group {group!r}, which has no host{also if balancers else ''}: add server hosts to it, or name "
            "another group",
        )  # fmt: skip
    elif balancers and not fleet and all(_is_absent(inventory.hostvars[host]) for host in inventory.servers):
        text = "leaves no replica to the balancers: keep one, or take the hosts out of the balancers' group"
        yield Problem("", "vllm_state", "absent", text)


def _is_absent(variables: Mapping[str, Any]) -> bool:
    return not _fleet.host_replicas("", variables)


def _server_settings(sound: _Sound, host: str) -> dict[str, Any]:
    inventory, variables = sound.inventory, sound.hostvars[host]
    reached_by = [*inventory.balancers, *inventory.members(inventory.monitor_group)]
    derived = addresses(inventory.hostvars, reached_by) if sound.placed else []
    allowed = _fleet.setting(variables, "vllm_firewall_allowed", derived)
    return {
        "api_keys": _accepted_keys(variables),
        "firewall": _fleet.setting(variables, "vllm_firewall", _fleet.DEFAULTS["vllm_firewall"]),
        "firewall_allowed": [*allowed, *_fleet.setting(variables, "vllm_firewall_extra", [])],
        "prefix": _fleet.setting(variables, "vllm_prefix", _fleet.DEFAULTS["vllm_prefix"]),
        "model_root": _fleet.setting(variables, "llm_model_root", _fleet.DEFAULTS["llm_model_root"]),
        "gpus": _fleet.number(variables, "vllm_gpus"),
        "version": _fleet.setting(variables, "vllm_version", _fleet.DEFAULTS["vllm_version"]),
        "torch_backend": _fleet.setting(variables, "vllm_torch_backend", ""),
    }


def _accepted_keys(variables: Mapping[str, Any]) -> Any:
    return _fleet.setting(variables, "vllm_api_keys", _fleet.setting(variables, "llmops_backend_keys", []))


def _sent_keys(variables: Mapping[str, Any]) -> Any:
    return _fleet.setting(variables, "llm_balancer_backend_keys", _fleet.setting(variables, "llmops_backend_keys", []))


def _replica(sound: _Sound, replica: Mapping[str, Any]) -> Iterator[Problem]:
    if replica["profile"] not in _fleet.PROFILES:
        return  # told already
    inventory, variables = sound.inventory, sound.hostvars[replica["host"]]
    flags = _fleet.setting(variables, "vllm_flags", {})
    wrong = list(check_flags.problems(replica, flags))
    yield from wrong
    if not re.fullmatch(r"\d+\.\d+\.\d+\S*", replica["version"]):
        text = (
            f"is {replica['version']!r}: give the whole version, such as {_fleet.DEFAULTS['vllm_version']}, in quotes"
        )
        yield Problem(replica["host"], "vllm_version", repr(replica["version"]), text)
    if wrong or inventory.model_config is None:
        return
    config, named = inventory.model_config(replica), replica["model_config"]
    if config is None and named:
        text = (
            f"is {named}, which is no readable config.json: give a path that is absolute, below the directory of this "
            "run, or beside the inventory"
        )
        yield Problem(replica["host"], _fleet.origin(variables, replica["name"], "model_config"), named, text)
    elif config is not None:
        environment = _fleet.setting(variables, "vllm_environment", {})
        try:
            planned = settings([replica], flags=flags, environment=environment)[0]
            kind = str(_fleet.setting(variables, "llmops_gpu_type", ""))
            yield from check_capacity.problems(planned, config, kind, _fleet.number(variables, "vllm_gpus"))
        except CapacityError as error:
            sound.not_understood.append(f"whether {replica['model_name']} fits: {error}")


def _balancer_problems(sound: _Sound, host: str, now: datetime.datetime, min_days: int) -> Iterator[Problem]:
    inventory, variables = sound.inventory, sound.hostvars[host]
    told = {**_balancer_settings(variables, sound.fleet), **inventory.certificate(host)}
    derived = members(sound.hostvars, inventory.balancers) if sound.placed else []
    told["members"] = _fleet.setting(variables, "llm_balancer_members", derived)
    given = _fleet.setting(variables, "llm_balancer_pools", None) is not None
    found = check_balancer.problems(told, now.date(), min_days, pools_derived=not given)
    if told.get("certificate") is not None:
        stamp = now.strftime(check_certificate.STAMP)
        name, certificate, key = told["server_name"], told["certificate"], told.get("private_key")
        found += check_certificate.problems(name, certificate, key, stamp, min_days)
    if not (sound.placed or given):  # of some hosts the pool is not known
        found = [problem for problem in found if not problem.variable.endswith((".pool", "_default_pool"))]
    yield from _originated(inventory, host, found)
    ports = {int(told[name]): name for name in ("port", "http_port", "status_port")}
    for replica in sound.fleet:
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
        for name, default in check_balancer.DEFAULTS.items()
    }
    default_pool = pools[0].get("name", "") if pools else ""
    clients = _fleet.setting(variables, "llmops_client_keys", [])
    return {
        **told,
        "pools": pools,
        "default_pool": _fleet.setting(variables, "llm_balancer_default_pool", default_pool),
        "client_keys": _fleet.setting(variables, "llm_balancer_client_keys", clients),
        "backend_keys": _sent_keys(variables),
    }


def _address_settings(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _fleet.setting(variables, f"llm_balancer_{name}", default)
        for name, default in check_address.DEFAULTS.items()
    }


def _strangers(sound: _Sound) -> Iterator[Problem]:
    """The key that a balancer sends must be one that every server accepts."""
    for server in sound.servers:
        variables = sound.hostvars[server]
        accepted = _accepted_keys(variables)
        if any(check_keys.backend_problems("", accepted)):
            continue
        sent = {host: _sent_keys(sound.hostvars[host])[:1] for host in sound.balancers}
        strange = [host for host, keys in sent.items() if keys and keys[0] not in accepted]
        if strange:
            variable = "vllm_api_keys" if "vllm_api_keys" in variables else "llmops_backend_keys"
            text = (
                f"does not hold the first key that balancer {strange[0]} sends, so the host would answer it with 401: "
                "give servers all keys, and balancers the same list"
            )
            yield Problem(server, variable, "", text)


def _probes(sound: _Sound) -> Iterator[Problem]:
    """Probes of the monitoring hosts must send keys that servers and balancers accept."""
    servers = [host for host in sound.servers if host not in sound.keyless]
    balancers = [host for host in sound.balancers if host not in sound.keyless]
    for host in sound.monitors:
        variables = sound.hostvars[host]
        if host in sound.keyless or _fleet.setting(variables, "llm_monitoring_state", "present") == "absent":
            continue
        clients = _fleet.setting(variables, "llmops_client_keys", [])
        first = clients[0] if isinstance(clients, list) and clients else {}
        default_key = first.get("key", "") if isinstance(first, Mapping) else ""
        backend_keys = _fleet.setting(variables, "llmops_backend_keys", [])
        told = {
            "backend_keys": _fleet.setting(variables, "llm_monitoring_backend_keys", backend_keys),
            "blackbox_install_method": _fleet.setting(variables, "llm_monitoring_blackbox_install_method", "package"),
            "service_key": _fleet.setting(variables, "llm_monitoring_service_key", default_key),
            "service_urls": _fleet.setting(variables, "llm_monitoring_service_urls"),
        }
        yield from _originated(sound.inventory, host, probe_problems(told, sound.hostvars, servers, balancers))


def probe_problems(
    settings: Mapping[str, Any],
    hostvars: Mapping[str, Mapping[str, Any]],
    servers: Sequence[str],
    balancers: Sequence[str],
) -> Iterator[Problem]:
    """Yield the keys that probes of a monitoring host lack.

    ``settings`` hold the role's ``backend_keys``, ``blackbox_install_method``, ``service_key`` and ``service_urls``
    (None: those of the balancers). Keys of servers and balancers that cannot be right are told elsewhere.
    """
    asked = {str(replica["host"]): None for replica in _fleet.replicas(hostvars, servers)}
    backend = {host: _accepted_keys(hostvars[host]) for host in asked}
    backend = {host: keys for host, keys in backend.items() if not any(check_keys.backend_problems("", keys))}
    clients = {host: _client_keys(hostvars[host]) for host in balancers}
    derived = settings["service_urls"] is None or settings["service_urls"] == service(hostvars, balancers)["urls"]
    if not derived and (settings["service_key"] or not settings["service_urls"]):
        clients = {}  # whoever answers at another address need not be one of the balancers
    yield from check_monitors.probe_problems(settings, backend, {host: keys for host, keys in clients.items() if keys})


def probe_messages(*args: Any, **kwargs: Any) -> list[str]:
    """Return the problems of probes as lines for people."""
    return [str(problem) for problem in probe_problems(*args, **kwargs)]


def _client_keys(variables: Mapping[str, Any]) -> list[str]:
    clients = _fleet.setting(variables, "llmops_client_keys", [])
    clients = _fleet.setting(variables, "llm_balancer_client_keys", clients)
    entries = clients if isinstance(clients, (list, tuple)) else []
    return [str(entry["key"]) for entry in entries if isinstance(entry, Mapping) and "key" in entry]


def _originated(inventory: Inventory, host: str, found: Iterable[Problem]) -> Iterator[Problem]:
    """Name the variable that the inventory sets: the fleet's own, without a host, where all hosts have the same."""
    variables = inventory.hostvars[host]
    for problem in found:
        role_variable = next((name for name in _ORIGIN if problem.variable.startswith(name)), None)
        if role_variable is None or _fleet.setting(variables, role_variable, None) is not None:
            yield Problem(host, problem.variable, problem.value, problem.message)
            continue
        origin = _ORIGIN[role_variable]
        same = all(inventory.hostvars[other].get(origin) == variables.get(origin) for other in inventory.hosts)
        name = problem.variable.replace(role_variable, origin)
        yield Problem("" if same else host, name, problem.value, problem.message)


def _not_checked(sound: _Sound) -> Iterator[str]:
    inventory = sound.inventory
    for replica in sound.fleet:
        unknown = _flags.why_not(replica["version"])
        if unknown:
            yield f"{unknown}; the parser of the installed version judges them on the host"
        read = inventory.model_config
        if read is None or not replica["model_name"] or not sound.is_sound(replica):
            continue
        if read(replica) is None and not replica["model_config"]:
            yield (
                f"whether {replica['model_name']} fits: its config.json is not at hand; name a copy in "
                "llmops_model_config"
            )
    yield from sound.not_understood
    present = [host for host in sound.monitors if sound.hostvars[host].get("llm_monitoring_state") != "absent"]
    first = next(iter(inventory.balancers), None)  # playbooks read it there
    if present and first is not None and not sound.hostvars[first].get("llmops_alertmanager_urls"):
        yield (
            f"who silences what drains and rollouts cause: llmops_alertmanager_urls of {first} is empty, so no "
            "Alertmanager is told and alerts page; give all hosts its addresses, as the controller reaches them"
        )
    for host in sound.balancers:
        files = inventory.certificate(host)
        for name, field_name in (("certificate", "certificate_pem"), ("key", "key_pem")):
            if sound.hostvars[host].get(f"llm_balancer_tls_{name}") and field_name not in files:
                yield f"the {name} of {host}: llm_balancer_tls_{name} is no file here"
        if files.get("unread"):
            yield f"certificate and key of {host}: {files['unread']}"
