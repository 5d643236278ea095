# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses as the configurations of NGINX and keepalived hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .. import _fleet


def upstream_name(pool: str) -> str:
    """Return the name of a pool's upstream group in NGINX."""
    return "llm_" + re.sub(r"[^A-Za-z0-9_.-]", "_", pool)


def exact_pattern(text: str) -> str:
    """Return the regular expression that matches exactly this key or name.

    Plain strings in a ``map`` ignore case, and words like "default" mean something else there.
    """
    return re.sub(r"([.+])", r"[\1]", text)


def server_address(address: str, port: int) -> str:
    """Return ``address:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def members(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> list[dict[str, str]]:
    """Return name and private address of balancers, from inventory variables alone, in the order of the hosts."""
    return [{"name": host, "address": _fleet.address(host, hostvars[host])} for host in hosts]


def interface(facts: Mapping[str, Any], address: str) -> str:
    """Return the network interface that carries this address, as the facts of a host tell; empty when none does."""
    for device in facts.values():
        if not isinstance(device, Mapping) or "device" not in device:
            continue
        first = device.get("ipv4") or {}
        carried = [first, *device.get("ipv4_secondaries", []), *device.get("ipv6", [])]
        if any(entry.get("address") == address for entry in carried):
            return str(device["device"])
    return ""
