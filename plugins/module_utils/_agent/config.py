# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's configuration, as the role llm_balancer writes it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError


class ConfigError(LlmopsError):
    """The configuration cannot be used; the text names file, key and value."""


@dataclass(frozen=True)
class Neighbour:
    """Another balancer's agent."""

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Config:
    """What this agent is and whom it serves. Times in seconds."""

    name: str
    address: str
    port: int
    engine: str  # nginx_lua | nginx_native
    peers: tuple[Neighbour, ...] = ()
    status_port: int = 8081  # of the engine, on 127.0.0.1
    reload_interval: float = 5  # native form: least time between two reloads that can wait
    slow_start: float = 10
    retry_percent: float = 20
    retry_burst: int = 20
    minimum: int = 1  # replicas of a pool that a drain leaves in rotation
    wedged_seconds: float = 60
    wedged_restarts_per_hour: int = 3
    limits: Limits = field(default_factory=Limits)
    keys: tuple[str, ...] = field(default=(), repr=False)  # backend keys: the first is sent, all are accepted
    directory: str = "/etc/llm-agent"  # holds pools.d
    state: str = "/var/lib/llm-agent"
    run: str = "/run/llm-agent"
    admin_socket: str = "/run/nginx-llm/admin.sock"  # of NGINX, lua form


def load(directory: str) -> Config:
    """Read ``config.json`` and ``keys.json`` of a directory; ConfigError names what is wrong."""
    found = dict(_document(Path(directory) / "config.json"))
    api = found.pop("api", None)
    if api != API:
        raise ConfigError(
            f"{directory}/config.json is of API {api!r}, this agent speaks {API}: run the role llm_balancer again"
        )
    try:
        peers = tuple(Neighbour(**peer) for peer in found.pop("peers", ()))
        limits = _limits(found.pop("limits", {}))
        keys = tuple(str(key) for key in _document(Path(directory) / "keys.json")["keys"])
        config = Config(**found, peers=peers, limits=limits, keys=keys, directory=directory)
    except (KeyError, TypeError) as problem:
        raise ConfigError(f"{directory}: {problem}: run the role llm_balancer again") from None
    if config.engine not in ("nginx_lua", "nginx_native"):
        raise ConfigError(f"{directory}/config.json: engine is {config.engine!r}, needed is nginx_lua or nginx_native")
    if not config.keys:
        raise ConfigError(f"{directory}/keys.json holds no key: set llmops_backend_keys")
    return config


def _limits(found: Mapping[str, Any]) -> Limits:
    known = {each.name for each in dataclasses.fields(Limits)}
    unknown = sorted(set(found) - known)
    if unknown:
        raise TypeError(f"limits has unknown keys {', '.join(unknown)}")
    return Limits(**found)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read: {problem.strerror}: run the role llm_balancer again") from None
    except ValueError as problem:
        raise ConfigError(f"{path} is no JSON ({problem}): run the role llm_balancer again") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no JSON object: run the role llm_balancer again")
    return document
