# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent needs of a program that forwards requests: take a view, say what is in flight and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, View
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError


class EngineError(LlmopsError):
    """The engine did not do, or did not confirm, what it was asked for."""


@dataclass(frozen=True)
class Sight:
    """What an engine says of itself."""

    alive: bool
    view: str = ""  # id of the view in force, "" for none
    inflight: Mapping[str, int] = field(default_factory=dict)  # requests in flight from this balancer, by replica id
    exact: bool = True  # False: counts of replicas that are not drained include idle kept connections
    observed: Mapping[str, Observed] = field(default_factory=dict)
    reason: str = ""  # why it is not alive


class Engine(Protocol):
    """One engine. A drain is a view in which the replica's state is ``drain``; there is no second way to set it."""

    async def apply(self, view: View, urgent: bool) -> None:
        """Bring the view into force and return when the engine confirmed it; EngineError otherwise.

        ``urgent`` views (a drain, a dead replica) are never put off; the others may be, where a change has a price.
        """

    async def look(self) -> Sight:
        """Ask the engine; what cannot be asked is a Sight that is not alive, never an exception."""

    async def close(self) -> None:
        """Let go of sockets and files; the engine itself goes on."""
