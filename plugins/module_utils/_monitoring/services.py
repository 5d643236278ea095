# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the monitoring hosts' services are told: where the service answers, secrets as files, hashes of passwords."""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import _fleet
from .._balancer.names import server_address
from .._check.balancer import DEFAULTS as BALANCER
from .._errors import LlmopsError

# Secrets of a receiver, and how their files are named.
RECEIVER_SECRETS = ("pagerduty_key", "slack_url", "webhook_token")

_BCRYPT = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class HashError(LlmopsError):
    """The controller cannot make a bcrypt hash."""


def service(hostvars: Mapping[str, Mapping[str, Any]], balancers: Iterable[str]) -> dict[str, Any]:
    """Return where clients reach the service: URLs, the name that the certificate has, the pool of clients without one.

    One URL for the address that balancers share, else one for each balancer. Empty is what balancers do not set.
    """
    balancers = list(balancers)
    urls: dict[str, None] = {}
    for host in balancers:
        variables = hostvars[host]
        shared = str(_fleet.setting(variables, "llm_balancer_virtual_address", "")).partition("/")[0]
        port = int(_fleet.setting(variables, "llm_balancer_port", BALANCER["port"]))
        urls[f"https://{server_address(shared or _fleet.address(host, variables), port)}/v1/models"] = None

    def first(variable: str) -> str:
        told = (str(_fleet.setting(hostvars[host], variable, "")) for host in balancers)
        return next(filter(None, told), "")

    return {
        "urls": list(urls),
        "name": first("llm_balancer_server_name"),
        "pool": first("llm_balancer_default_pool"),
    }


def users(entries: Iterable[Mapping[str, Any]], host: str) -> dict[str, str]:
    """Return name -> bcrypt hash of the users of web pages."""
    return {
        str(entry["name"]): str(entry.get("hash") or bcrypt(str(entry.get("password", "")), f"{host}/{entry['name']}"))
        for entry in entries
    }


def bcrypt(password: str, place: str) -> str:
    """Return the bcrypt hash of a password, the same one each time.

    The salt comes from where the password is used and not from the password: it need not be secret, but one made of
    the password would be a quick way to test guesses.
    """
    digest = hashlib.sha256(place.encode()).digest()[:16]
    salt = base64.b64encode(digest).decode().rstrip("=").translate(str.maketrans(_PLAIN, _BCRYPT))
    setting = f"$2b$10${salt}"
    name = ctypes.util.find_library("crypt")
    if name is not None:
        crypt = ctypes.CDLL(name).crypt
        crypt.restype = ctypes.c_char_p
        made = (crypt(password.encode(), setting.encode()) or b"").decode()
        if len(made) == 60 and made.startswith("$2b$"):
            return str(made)
    raise HashError(
        "llm_monitoring_web_users: this controller's C library makes no bcrypt hashes: give each entry a hash "
        "(htpasswd -nB NAME makes one) besides its password"
    )


def secrets(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the secrets that services read from files: name and content of each file."""
    return [{"name": name, "content": content} for name, content in _secrets(settings) if content]


def secret_file(receiver: str, kind: str) -> str:
    """Return the name of the file that holds a secret of a receiver."""
    return f"llm-{kind.replace('_', '-')}-{receiver}"


def _secrets(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "llm-backend-key", next(iter(settings["backend_keys"]), "")
    yield "llm-service-key", str(settings["service_key"])
    yield "llm-smtp-password", str(settings["smtp_password"])
    yield "llm-web-password", next((str(user.get("password") or "") for user in settings["web_users"]), "")
    for receiver in settings["receivers"]:
        for kind in RECEIVER_SECRETS:
            yield secret_file(str(receiver["name"]), kind), str(receiver.get(kind) or "")
    yield from ((str(name), str(content)) for name, content in settings["secret_files"].items())
