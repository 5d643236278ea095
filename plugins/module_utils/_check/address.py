# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the address that balancers share: the address, VRRP's numbers, who takes part."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Union

from .problem import Problem

# Defaults of the role; a test holds them equal.
DEFAULTS: dict[str, Any] = {
    "advert_interval": 0.2,
    "virtual_address": "",
    "virtual_router_id": 77,
}
# Seconds. VRRP 3 counts hundredths in 12 bits; below the first a host that is merely busy looks dead.
INTERVALS = (0.05, 40.95)
ROUTER_IDS = (1, 255)

_VARIABLE = "llm_balancer_virtual_address"
_Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]


def problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot work in the variables of the role llm_balancer; nothing without an address.

    ``members`` are the balancers with their addresses; ``host``, where it is there, must be one of them.
    """
    text = str(settings["virtual_address"])
    if not text:
        return
    address = _interface(text)
    if address is None:
        told = f"is {text!r}: give the address and the length of its network, such as 192.0.2.10/24"
        yield Problem("", _VARIABLE, repr(text), told)
    else:
        yield from _address(address, text)
        yield from _members(address, settings)
    yield from _numbers(settings)


def differing(told: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield the settings that must be the same on every balancer and are not; ``told`` holds them by host."""
    hosts = list(told)
    for host in hosts[1:]:
        for name in DEFAULTS:
            first, other = told[hosts[0]][name], told[host][name]
            if str(first) != str(other):
                text = f"is {other!r}, and {first!r} on balancer {hosts[0]}: give all balancers the same"
                yield Problem(host, f"llm_balancer_{name}", repr(other), text)


def _interface(text: str) -> _Interface | None:
    try:
        return ipaddress.ip_interface(text) if "/" in text else None
    except ValueError:
        return None


def _address(address: _Interface, text: str) -> Iterator[Problem]:
    ip, network = address.ip, address.network
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        yield Problem("", _VARIABLE, repr(text), f"is {text!r}, which clients cannot reach: give a unicast address")
    elif network.num_addresses > 2 and ip in (network.network_address, network.broadcast_address):
        told = f"is {text!r}, which is the network {network} itself: give one address of it"
        yield Problem("", _VARIABLE, repr(text), told)


def _members(address: _Interface, settings: Mapping[str, Any]) -> Iterator[Problem]:
    host = settings.get("host")
    names = [str(member["name"]) for member in settings["members"]]
    if host is not None and host not in names:
        told = (
            f"is set, and {host} is none of the balancers {', '.join(names) or '(there are none)'}: put it into the "
            "inventory group of the balancers (llmops_balancer_group), or set llm_balancer_members"
        )
        yield Problem("", _VARIABLE, str(address), told)
    for member in settings["members"]:
        text = str(member["address"])
        try:
            own = ipaddress.ip_address(text)
        except ValueError:
            told = (
                f"of balancer {member['name']} is {text!r}: balancers that share an address tell each other by IP "
                "address who is alive, so set llmops_address to one"
            )
            yield Problem("", "llmops_address", repr(text), told)
            continue
        if own == address.ip:
            told = f"is {address}, the own address of balancer {member['name']}: give an address that no host has"
            yield Problem("", _VARIABLE, str(address), told)
        elif own.version != address.version:
            told = (
                f"is {address}, and balancer {member['name']} is reached by {text}: VRRP wants both of one family, so "
                f"set llmops_address of the balancers to an IPv{address.version} address"
            )
            yield Problem("", _VARIABLE, str(address), told)


def _numbers(settings: Mapping[str, Any]) -> Iterator[Problem]:
    router_id, (low, high) = int(settings["virtual_router_id"]), ROUTER_IDS
    if not low <= router_id <= high:
        told = f"is {router_id}: VRRP takes {low} to {high}, another one for each address in a network"
        yield Problem("", "llm_balancer_virtual_router_id", str(router_id), told)
    interval, (shortest, longest) = float(settings["advert_interval"]), INTERVALS
    if not shortest <= interval <= longest:
        told = f"is {interval:g} s: give {shortest:g} to {longest:g}"
        yield Problem("", "llm_balancer_advert_interval", f"{interval:g}", told)
