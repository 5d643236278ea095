# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog's configuration, as the role vllm writes it, and the keys that the releases in force hold."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError


class ConfigError(LlmopsError):
    """The configuration cannot be used; the text names the file and what is wrong."""


@dataclass(frozen=True)
class Agent:
    """The agent of a balancer."""

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Own:
    """A replica of this host."""

    id: str
    name: str
    unit: str
    pool: str
    url: str


@dataclass(frozen=True)
class Config:
    """Whom the watchdog asks, what it looks after, and where it writes."""

    agents: tuple[Agent, ...]
    replicas: tuple[Own, ...]
    releases: str = "/etc/vllm"
    state: str = "/var/lib/vllm-watchdog"  # flight records
    run: str = "/run/vllm-watchdog"  # what was handled: gone with a reboot, as every process is


def load(path: Path) -> Config:
    """Read the configuration; ConfigError when it cannot be used."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        api = found.pop("api")
        if api != API:
            raise ConfigError(f"{path} is of API {api!r}, this watchdog speaks {API}: run the role vllm again")
        agents = tuple(Agent(**entry) for entry in found.pop("agents"))
        replicas = tuple(Own(**entry) for entry in found.pop("replicas"))
        return Config(agents, replicas, **found)
    except OSError as problem:
        raise ConfigError(f"{path}: {problem.strerror or problem}: run the role vllm again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigError(f"{path} is no configuration of the watchdog ({problem}): run the role vllm again") from None


def keys_of(config: Config, name: str) -> list[str]:
    """Keys that a replica's release in force accepts; none where they cannot be read.

    The balancers sign with one that the replicas accept, so no second copy of the secret is needed.
    """
    with contextlib.suppress(OSError, ValueError):
        text = (Path(config.releases) / name / "current" / "config.yaml").read_text(encoding="utf-8")
        for line in text.splitlines():
            flag, colon, value = line.partition(":")
            if colon and flag == "api-key":
                keys = json.loads(value)
                return [str(key) for key in (keys if isinstance(keys, list) else [keys])]
    return []


def all_keys(config: Config) -> list[str]:
    """Keys of all replicas of this host, each once."""
    found: Iterable[str] = (key for replica in config.replicas for key in keys_of(config, replica.name))
    return list(dict.fromkeys(found))
