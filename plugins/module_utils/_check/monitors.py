# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the settings of the monitoring hosts. No message ever holds a secret."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import certificate, receivers
from .problem import Problem
from .report import first_and_more

ROLE = "llm_monitoring"
# Jobs of prometheus.yml that are the role's own.
JOBS = (
    "vllm",
    "probe_completion",
    "probe_models",
    "probe_service",
    "agent",
    "balancer_log",
    "nginx",
    "node",
    "gpu",
    "prometheus",
    "alertmanager",
    "blackbox",
    "grafana",
)
PARTS = ("prometheus", "alertmanager", "blackbox", "grafana")
LONGEST_INTERVAL = 10  # seconds between two scrapes; see the windows of the rules
LEAST_DAYS = 32  # of measurements that are kept
# bcrypt looks at the first 72 bytes alone.
PASSWORD = (12, 72)

_HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INLINE = {"password", "credentials", "bearer_token", "client_secret", "secret_key", "secrets"}
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")


def problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot work in the variables of the role llm_monitoring, which ``settings`` hold without prefix."""
    yield from _archives(settings)
    yield from _native_histograms(settings)
    yield from _ports(settings)
    yield from _pem(settings)
    yield from _listening(settings)
    yield from _keys_of_probes(settings)
    yield from _users(settings)
    yield from _intervals(settings)
    yield from _pass_through(settings)
    yield from _grafana(settings)
    if settings["alertmanager_install_method"] != "none":
        yield from receivers.problems(settings)


def messages(settings: Mapping[str, Any]) -> list[str]:
    """Return the problems as lines for people."""
    return [str(problem) for problem in problems(settings)]


def probe_problems(
    settings: Mapping[str, Any], servers: Mapping[str, Sequence[Any]], balancers: Mapping[str, Sequence[Any]]
) -> Iterator[Problem]:
    """Yield the keys of probes that would be answered with 401, by which an alert would page until they are mended.

    ``servers`` and ``balancers`` are the keys that each host accepts which is asked. A blackbox exporter that the role
    does not install has keys of its own.
    """
    if settings["blackbox_install_method"] == "none":
        return
    mend = "give monitoring hosts the list of the servers"
    key = next(iter(settings["backend_keys"]), "")
    yield from _refused("backend_keys", key, servers, "LLMModelNotServed", mend)
    mend = f"give monitoring hosts the key of a client, as {ROLE}_service_key or in llmops_client_keys"
    yield from _refused("service_key", settings["service_key"], balancers, "LLMServiceDown", mend)


def _refused(name: str, key: Any, accepted: Mapping[str, Sequence[Any]], alert: str, mend: str) -> Iterator[Problem]:
    refusing = [host for host, keys in accepted.items() if not key or str(key) not in map(str, keys)]
    if refusing:
        gives = "a key that" if key else "no key, which"
        answers = f"{first_and_more(refusing)} {'answers' if len(refusing) == 1 else 'answer'} with 401"
        yield _problem(name, "", f"gives probes {gives} {answers}, so {alert} would page until it is mended: {mend}")


def installed(settings: Mapping[str, Any]) -> list[str]:
    """Return the parts that the role installs itself."""
    return [part for part in PARTS if settings[f"{part}_install_method"] != "none"]


def _problem(name: str, value: Any, text: str) -> Problem:
    return Problem("", f"{ROLE}_{name}", str(value), text)


def _archives(settings: Mapping[str, Any]) -> Iterator[Problem]:
    machine = settings["architecture"]
    for part in installed(settings):
        if settings[f"{part}_install_method"] != "archive":
            continue
        name, digests = f"{part}_sha256", settings[f"{part}_sha256"]
        if machine not in digests:
            text = (
                f"has no digest for {machine}: add that of {part} {settings[f'{part}_version']} from its makers' "
                f"sha256sums, or set {ROLE}_{part}_install_method: package"
            )
            yield _problem(name, machine, text)
        elif not re.fullmatch(r"[0-9a-f]{64}", str(digests[machine])):
            yield _problem(name, digests[machine], f"is no sha256 for {machine}: give its 64 hexadecimal digits")


def _native_histograms(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """An existing Prometheus is not asked for its version here: the role says what it needs."""
    method, version = settings["prometheus_install_method"], str(settings["prometheus_version"])
    if not settings["native_histograms"] or method == "none":
        return
    if method == "package":
        text = (
            "is true and needs Prometheus 3.0 or newer, and packages of the distributions are older (Debian 12: 2.42, "
            f"Debian 13: 2.53): set {ROLE}_prometheus_install_method: archive, or leave it false"
        )
        yield _problem("native_histograms", True, text)
    elif re.match(r"[0-2]\.", version):
        text = (
            f"is true and needs Prometheus 3.0 or newer, and {ROLE}_prometheus_version is {version}: give a newer one "
            "with its sha256, or leave it false"
        )
        yield _problem("native_histograms", True, text)


def _ports(settings: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    parts = installed(settings)
    names = [f"{part}_port" for part in parts]
    if "alertmanager" in parts and len(settings["members"]) > 1:
        names.append("cluster_port")
    for name in names:
        port = int(settings[name])
        if not 1 <= port <= 65535:
            yield _problem(name, port, f"is {port}: a port lies between 1 and 65535")
        elif port in seen:
            yield _problem(name, port, f"is {port}, already taken by {ROLE}_{seen[port]}: give each its own port")
        else:
            seen[port] = name


def _pem(settings: Mapping[str, Any]) -> Iterator[Problem]:
    if settings["tls_certificate"] or settings["tls_key"]:
        yield from certificate.pem_problems(settings, ROLE, "Prometheus")


def _listening(settings: Mapping[str, Any]) -> Iterator[Problem]:
    address = str(settings["listen_address"])
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        yield _problem("listen_address", address, f"is {address!r}: give an IP address of the host")
        return
    served = [part for part in installed(settings) if part != "blackbox"]
    if not served:
        return
    if loopback and len(settings["members"]) > 1:
        text = (
            f"is {address}, and {len(settings['members'])} monitoring hosts must reach each other: give "
            f"{ROLE}_tls_certificate and {ROLE}_tls_key, with which they listen on their private addresses, or set "
            f"{ROLE}_plain_http: true"
        )
        yield _problem("listen_address", address, text)
    if loopback:
        return
    if not settings["tls_certificate"] and not settings["plain_http"]:
        text = (
            f"is {address}, and without {ROLE}_tls_certificate passwords would cross the network in clear text: give a "
            f"certificate and its key, listen on 127.0.0.1, or set {ROLE}_plain_http: true"
        )
        yield _problem("listen_address", address, text)
    if not settings["web_users"] and served != ["grafana"]:
        text = f"is empty, and services listen on {address}: give at least one user, as [{{name: ..., password: ...}}]"
        yield _problem("web_users", "", text)


def _keys_of_probes(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """The blackbox exporter sends a module's key to whatever target a request names."""
    keys = settings["backend_keys"] or settings["service_key"]
    if "blackbox" in installed(settings) and keys and not settings["web_users"]:
        text = (
            "is empty, and the blackbox exporter would send the keys of its probes wherever any user of the host lets "
            "it: give llmops_monitoring_user and llmops_monitoring_password, or users, as [{name: ..., password: ...}]"
        )
        yield _problem("web_users", "", text)


def _users(settings: Mapping[str, Any]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, user in enumerate(settings["web_users"]):
        name, password, digest = str(user["name"]), user.get("password"), user.get("hash")
        where = f"web_users[{name}]"
        if name in seen:
            yield _problem(where, name, "is there twice: give each user one entry")
        seen.add(name)
        if not name or ":" in name:
            yield _problem(where, name, "has no usable name: give one without a colon")
        if index == 0 and not password:
            yield _problem(
                where, name, "has no password, and the services reach each other by the first user: give its password"
            )
        if password is None and digest is None:
            yield _problem(where, name, "has neither password nor hash: give one of them")
        if password is not None and not PASSWORD[0] <= len(str(password).encode()) <= PASSWORD[1]:
            told = f"has a password of {len(str(password).encode())} bytes: give {PASSWORD[0]} to {PASSWORD[1]}"
            yield _problem(where, "", told)
        if digest is not None and not _HASH.fullmatch(str(digest)):
            yield _problem(where, "", "has a hash that is not bcrypt's: make one with htpasswd -nB NAME")


def _intervals(settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("scrape_interval", "scrape_timeout", "evaluation_interval", "probe_interval", "probe_timeout"):
        if int(settings[name]) < 1:
            yield _problem(name, settings[name], f"is {settings[name]}: give 1 second or more")
    if int(settings["scrape_interval"]) > LONGEST_INTERVAL:
        text = f"is {settings['scrape_interval']}: alerts look at the last 40 seconds; give {LONGEST_INTERVAL} or less"
        yield _problem("scrape_interval", settings["scrape_interval"], text)
    days = int(settings["retention_days"])
    if days < LEAST_DAYS:
        text = f"is {days}: budgets and objectives look back 30 days, and the month 31; give {LEAST_DAYS} or more"
        yield _problem("retention_days", days, text)
    for kind in ("scrape", "probe"):
        timeout, interval = int(settings[f"{kind}_timeout"]), int(settings[f"{kind}_interval"])
        if timeout > interval:
            text = f"is {timeout} s, more than {ROLE}_{kind}_interval, {interval} s: give {interval} or less"
            yield _problem(f"{kind}_timeout", timeout, text)


def _pass_through(settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in settings["external_labels"]:
        if not _LABEL.fullmatch(str(name)) or name == "monitor":
            why = "tells the monitoring host and is the role's own" if name == "monitor" else "is no name of a label"
            yield _problem(f"external_labels.{name}", name, f"{why}: give another name")
    for name, value in settings["secret_files"].items():
        if not _FILE.fullmatch(str(name)) or str(name).startswith("llm-"):
            text = "is no name for a file of yours: letters, digits, '.', '_' and '-', and no llm- at the beginning"
            yield _problem(f"secret_files.{name}", name, text)
        elif not value:
            yield _problem(f"secret_files.{name}", name, "is empty: give the secret, or remove the line")
    for entry in settings["remote_write"]:
        where = f"remote_write[{entry.get('name') or _LOGIN.sub('', str(entry.get('url') or '')) or '?'}]"
        if not entry.get("url"):
            yield _problem(where, "", "has no url: give the address that takes the samples")
        yield from _shown_secrets(where, entry)
    for entry in settings["scrape_configs"]:
        job = entry.get("job_name")
        where = f"scrape_configs[{job or '?'}]"
        if not job or job in JOBS:
            told = f"is named {job!r}, a job of the role" if job else "has no job_name"
            yield _problem(where, job, f"{told}: give a name of its own")
        yield from _shown_secrets(where, entry)


def _shown_secrets(where: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    for key in sorted(_secrets_inside(entry)):
        instead = "files" if key == "secrets" else f"{key}_file" if key in _INLINE else "basic_auth, password_file"
        text = (
            f"holds a secret in {key}, which prometheus.yml would show: put it into {ROLE}_secret_files and name "
            f"that file in {instead} (/etc/prometheus/secrets/NAME)"
        )
        yield _problem(where, "", text)


def _secrets_inside(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        found = {str(key) for key, inner in value.items() if inner and _is_secret(str(key), inner)}
        return found.union(*map(_secrets_inside, value.values()))
    return set().union(*map(_secrets_inside, value)) if isinstance(value, list) else set()


def _is_secret(key: str, value: Any) -> bool:
    return isinstance(value, str) and (key in _INLINE or bool(_LOGIN.search(value))) or key == "secrets"


def _grafana(settings: Mapping[str, Any]) -> Iterator[Problem]:
    if settings["grafana_install_method"] == "none":
        return
    size = len(str(settings["grafana_admin_password"]).encode())
    if size < PASSWORD[0]:
        told = "is empty" if size == 0 else f"has {size} bytes"
        yield _problem("grafana_admin_password", "", f"{told}: give {PASSWORD[0]} or more (vault it)")
