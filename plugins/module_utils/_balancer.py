# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the settings of a balancer, in words for an operator. No message ever holds a secret."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

CLIENT_KEY_MIN = 16
BACKEND_KEY_MIN = 32
KEY_MAX = 512
REPLICA_KEEPALIVE = 75  # seconds; VLLM_HTTP_TIMEOUT_KEEP_ALIVE that the role vllm sets

# What RFC 6750 allows in "Authorization: Bearer <token>"; nothing in it has a meaning in NGINX's configuration.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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


def setting_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return one message for each setting that cannot work; an empty list when all can."""
    found: list[str] = []
    found += _port_problems(settings)
    found += _pool_problems(settings)
    found += _client_key_problems(settings)
    found += _backend_key_problems(settings)
    found += _pem_problems(settings)
    keepalive = int(settings["upstream_keepalive_timeout"])
    if keepalive >= REPLICA_KEEPALIVE:
        found.append(
            f"llm_balancer_upstream_keepalive_timeout is {keepalive} s: it must stay below the {REPLICA_KEEPALIVE} s "
            "after which a replica closes an idle connection, or requests run into closed connections"
        )
    if int(settings["tries"]) < 1:
        found.append(
            f"llm_balancer_tries is {settings['tries']}: 0 would mean without limit, and a request that kills its "
            "engine would then kill every engine of the pool; set 1 (no retry) or more"
        )
    return found


def certificate_problems(
    server_name: str, certificate: Mapping[str, Any], private_key: Mapping[str, Any], now: str
) -> list[str]:
    """Return what is wrong with a certificate and its key.

    ``certificate`` and ``private_key`` are the results of community.crypto's info filters, times ``YYYYMMDDHHMMSSZ``.
    """
    found: list[str] = []
    if str(certificate["not_after"]) <= now:
        found.append(
            f"llm_balancer_tls_certificate expired at {_readable(certificate['not_after'])} (now {_readable(now)}): "
            "renew it"
        )
    if str(certificate["not_before"]) > now:
        found.append(
            f"llm_balancer_tls_certificate is not valid before {_readable(certificate['not_before'])} "
            f"(now {_readable(now)}): wait, or set the controller's clock"
        )
    if certificate["public_key_fingerprints"]["sha256"] != private_key["public_key_fingerprints"]["sha256"]:
        found.append(
            "llm_balancer_tls_key does not belong to llm_balancer_tls_certificate (their public keys differ): give the "
            "key with which this certificate was requested, and the server's certificate first in its file"
        )
    names = [str(name) for name in certificate.get("subject_alt_name") or []]
    if server_name != "" and not any(_covers(name, server_name) for name in names):
        found.append(
            f"llm_balancer_tls_certificate does not cover llm_balancer_server_name {server_name!r}; it covers "
            f"{', '.join(names) or 'no name at all (subjectAltName is empty, which clients refuse)'}: "
            "correct the name or use another certificate"
        )
    return found


def _readable(stamp: object) -> str:
    return re.sub(r"^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$", r"\1-\2-\3 \4:\5:\6 UTC", str(stamp))


def _covers(alternative: str, wanted: str) -> bool:
    kind, _colon, value = alternative.partition(":")
    value, wanted = value.lower().rstrip("."), wanted.lower().rstrip(".")
    if kind in ("IP", "IP Address"):
        try:
            return ipaddress.ip_address(value) == ipaddress.ip_address(wanted)
        except ValueError:
            return False
    if kind != "DNS":
        return False
    if value.startswith("*."):  # a star stands for one label
        return wanted.partition(".")[2] == value[2:]
    return value == wanted


def _port_problems(settings: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    seen: dict[int, str] = {}
    for name in ("port", "http_port", "status_port"):
        port = int(settings[name])
        if name == "http_port" and port == 0:
            continue
        if not 1 <= port <= 65535:
            found.append(f"llm_balancer_{name} is {port}: a port lies between 1 and 65535")
        elif port in seen:
            found.append(f"llm_balancer_{name} is {port}, already taken by {seen[port]}: give each its own port")
        else:
            seen[port] = f"llm_balancer_{name}"
    return found


def _pool_problems(settings: Mapping[str, Any]) -> list[str]:
    pools: Sequence[Mapping[str, Any]] = settings["pools"]
    if not pools:
        return [
            "llm_balancer_pools is empty: no replica to send requests to; put hosts into the inventory group of the "
            "servers (llmops_server_group) or set llm_balancer_pools"
        ]
    found: list[str] = []
    groups: dict[str, str] = {}
    endpoints: dict[str, str] = {}
    for pool in pools:
        name = str(pool["name"])
        group = upstream_name(name).lower()
        if not _NAME.fullmatch(name):
            found.append(f"llm_balancer_pools has a pool named {name!r}: use letters, digits, dot, dash, underscore")
        if group in groups:
            found.append(
                f"llm_balancer_pools has pools {groups[group]!r} and {name!r}, which are one name to NGINX: rename one"
            )
        groups[group] = name
        if not pool["replicas"]:
            found.append(f"llm_balancer_pools: pool {name!r} has no replica: add one or remove the pool")
        for replica in pool["replicas"]:
            endpoint = server_address(str(replica["address"]), int(replica["port"]))
            if endpoint in endpoints:
                found.append(
                    f"llm_balancer_pools: {replica['id']} and {endpoints[endpoint]} both listen on {endpoint}: "
                    "give every replica its own address and port (llmops_address, vllm_port)"
                )
            endpoints[endpoint] = str(replica["id"])
    default = str(settings["default_pool"])
    names = [str(pool["name"]) for pool in pools]
    if default not in names:
        found.append(f"llm_balancer_default_pool is {default!r}, which is no pool: one of {', '.join(names)}")
    return found


def _client_key_problems(settings: Mapping[str, Any]) -> list[str]:
    keys: Sequence[Mapping[str, Any]] = settings["client_keys"]
    if not keys:
        return [
            "llm_balancer_client_keys is empty: every request would get 401; add at least one {name, key} "
            "(llmops_client_keys)"
        ]
    pools = [str(pool["name"]) for pool in settings["pools"]]
    backend = {str(key) for key in settings["backend_keys"]}
    found: list[str] = []
    owners: dict[str, str] = {}
    pinned: dict[str, str] = {}
    for number, entry in enumerate(keys):
        name, key, pool = str(entry["name"]), str(entry["key"]), str(entry.get("pool") or "")
        where = f"llm_balancer_client_keys[{number}] ({name})"
        if not _NAME.fullmatch(name):
            found.append(f"llm_balancer_client_keys[{number}].name is {name!r}: use letters, digits, dot, dash, _")
        found += _key_problems(f"{where}.key", key, CLIENT_KEY_MIN)
        if key in owners:
            found.append(f"{where}.key is also the key of {owners[key]}: every entry needs a key of its own")
        owners[key] = name
        if key in backend:
            found.append(
                f"{where}.key is also in llm_balancer_backend_keys: a client who holds it could pass by the balancer; "
                "use another key"
            )
        if pool != "" and pool not in pools:
            found.append(f"{where}.pool is {pool!r}, which is no pool: one of {', '.join(pools)}, or none")
        if pinned.setdefault(name, pool) != pool:
            found.append(
                f"{where}.pool is {pool!r}, but another key of {name} has {pinned[name]!r}: the keys of one name are "
                "one client and go to one pool"
            )
    return found


def _backend_key_problems(settings: Mapping[str, Any]) -> list[str]:
    keys: Sequence[str] = settings["backend_keys"]
    if not keys:
        return [
            "llm_balancer_backend_keys is empty: the replicas would refuse the balancer; set the same list as "
            "vllm_api_keys (llmops_backend_keys)"
        ]
    return _key_problems("llm_balancer_backend_keys[0]", str(keys[0]), BACKEND_KEY_MIN)


def _key_problems(where: str, key: str, shortest: int) -> list[str]:
    if not shortest <= len(key) <= KEY_MAX:
        return [f"{where} has {len(key)} characters: {shortest} to {KEY_MAX} are needed"]
    if not _TOKEN.fullmatch(key):
        return [
            f"{where} has characters that a bearer token must not have: use letters, digits and - . _ ~ + / "
            "(and = at the end)"
        ]
    return []


def _damaged(pem: str, kind: str) -> bool:
    """Tell whether the first PEM block of this kind cannot be DER: base64 of a sequence (tag 0x30)."""
    block = re.search(rf"-----BEGIN [A-Z ]*{kind}-----(.*?)-----END [A-Z ]*{kind}-----", pem, re.DOTALL)
    try:
        return block is None or base64.b64decode("".join(block[1].split()), validate=True)[:1] != b"\x30"
    except binascii.Error:
        return True


def _pem_problems(settings: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    wanted = (("tls_certificate", "certificate_pem", "CERTIFICATE"), ("tls_key", "key_pem", "PRIVATE KEY"))
    for variable, field, kind in wanted:
        value, pem = str(settings[variable] or ""), str(settings[field] or "")
        content = value.lstrip().startswith("-----BEGIN")
        what = "its content" if content else f"the file {value} on the controller"
        if value == "":
            found.append(f"llm_balancer_{variable} is empty: give the PEM text or the path of a file on the controller")
        elif pem == "":
            found.append(f"llm_balancer_{variable}: {what} is missing, empty or not readable: correct the path")
        elif f"{kind}-----" not in pem:
            found.append(f"llm_balancer_{variable}: {what} holds no {kind} in PEM form: convert it")
        elif variable == "tls_key" and "ENCRYPTED" in pem:
            found.append(
                f"llm_balancer_{variable}: {what} is protected by a passphrase, which NGINX cannot ask for at a "
                "restart: store it without one, encrypted by ansible-vault"
            )
        elif _damaged(pem, kind):
            found.append(f"llm_balancer_{variable}: the {kind} in {what} is damaged: compare it with the original")
    return found
