# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the settings of a balancer. No message ever holds a secret."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._balancer.names import server_address, upstream_name
from . import address, certificate, keys
from .problem import Problem

REPLICA_KEEPALIVE = 75  # seconds; VLLM_HTTP_TIMEOUT_KEEP_ALIVE that the role vllm sets

# Defaults of the role that the check of an inventory needs; a test holds them equal to the role's.
DEFAULTS: dict[str, Any] = {
    **address.DEFAULTS,
    "agent_port": 9177,
    "http_port": 0,
    "port": 443,
    "server_name": "",
    "status_port": 8081,
    "tls_certificate": "",
    "tls_key": "",
    "tries": 2,
    "upstream_keepalive_timeout": 60,
}

_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def problems(
    settings: Mapping[str, Any], today: datetime.date, min_days: int = 0, *, pools_derived: bool = False
) -> list[Problem]:
    """Return what cannot work, in the variables of the role llm_balancer; an empty list when all can.

    ``settings`` holds the role's variables without their prefix, and the PEM texts where they are at hand. Client keys
    must be valid ``min_days`` days from ``today``. Pools that were derived from the servers have been judged there.
    """
    return [
        *_ports(settings),
        *([] if pools_derived else _pools(settings)),
        *_pool_names(settings),
        *keys.client_problems(
            "llm_balancer_client_keys",
            settings["client_keys"],
            pools=[str(pool["name"]) for pool in settings["pools"]],
            backend_keys=settings["backend_keys"],
            today=today,
            min_days=min_days,
        ),
        # Only the first is sent; what else the replicas accept is no matter of the balancer.
        *keys.backend_problems("llm_balancer_backend_keys", settings["backend_keys"][:1]),
        *certificate.pem_problems(settings),
        *_limits(settings),
        *address.problems(settings),
    ]


def messages(settings: Mapping[str, Any]) -> list[str]:
    """Return the problems as lines for people, as of today."""
    return [str(problem) for problem in problems(settings, datetime.datetime.now(datetime.timezone.utc).date())]


def _ports(settings: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    for name in ("port", "http_port", "status_port", "agent_port"):
        port, variable = int(settings[name]), f"llm_balancer_{name}"
        if name == "http_port" and port == 0:
            continue
        if not 1 <= port <= 65535:
            yield Problem("", variable, str(port), f"is {port}: a port lies between 1 and 65535")
        elif port in seen:
            yield Problem("", variable, str(port), f"is {port}, already taken by {seen[port]}: give each its own port")
        else:
            seen[port] = variable


def _pools(settings: Mapping[str, Any]) -> Iterator[Problem]:
    variable = "llm_balancer_pools"
    if not settings["pools"]:
        text = (
            "is empty: no replica to send requests to; put hosts into the inventory group of the servers "
            "(llmops_server_group) or set llm_balancer_pools"
        )
        yield Problem("", variable, "[]", text)
    endpoints: dict[str, str] = {}
    for pool in settings["pools"]:
        name = str(pool["name"])
        if not _POOL_NAME.fullmatch(name):
            text = f"has a pool named {name!r}: use letters, digits, dots, dashes and underscores"
            yield Problem("", variable, repr(name), text)
        if not pool["replicas"]:
            text = f"has pool {name!r} without a replica: add one or remove the pool"
            yield Problem("", variable, repr(name), text)
        for replica in pool["replicas"]:
            lacking = [key for key in ("id", "address", "port") if key not in replica]
            if not (replica.get("model_name") or pool.get("model_name")):
                lacking.append("model_name")  # what a probe asks for
            if lacking:
                needed = "give id, address, port and model_name"
                text = f"has a replica of pool {name!r} without {', '.join(lacking)}: {needed}"
                yield Problem("", variable, repr(name), text)
                continue
            endpoint = server_address(str(replica["address"]), int(replica["port"]))
            if endpoint in endpoints:
                text = (
                    f"has {replica['id']} and {endpoints[endpoint]}, which both listen on {endpoint}: give every "
                    "replica its own address and port (llmops_address, vllm_port)"
                )
                yield Problem("", variable, endpoint, text)
            endpoints[endpoint] = str(replica["id"])


def _pool_names(settings: Mapping[str, Any]) -> Iterator[Problem]:
    groups: dict[str, str] = {}
    names = [str(pool["name"]) for pool in settings["pools"]]
    for name in names:
        group = upstream_name(name).lower()
        if group in groups:
            text = f"is {name!r}, and there is a pool {groups[group]!r}, which is the same name to NGINX: rename one"
            yield Problem("", "llmops_pool", repr(name), text)
        groups[group] = name
    default = str(settings["default_pool"])
    if names and default not in names:
        text = f"is {default!r}, which is no pool: one of {', '.join(names)}"
        yield Problem("", "llm_balancer_default_pool", repr(default), text)


def _limits(settings: Mapping[str, Any]) -> Iterator[Problem]:
    keepalive = int(settings["upstream_keepalive_timeout"])
    if keepalive >= REPLICA_KEEPALIVE:
        text = (
            f"is {keepalive} s: it must stay below the {REPLICA_KEEPALIVE} s after which a replica closes an idle "
            "connection, or requests run into closed connections"
        )
        yield Problem("", "llm_balancer_upstream_keepalive_timeout", str(keepalive), text)
    tries = int(settings["tries"])
    if tries < 1:
        text = (
            f"is {tries}: 0 would mean without limit, and a request that kills its engine would then kill every engine "
            "of the pool; set 1 (no retry) or more"
        )
        yield Problem("", "llm_balancer_tries", str(tries), text)
