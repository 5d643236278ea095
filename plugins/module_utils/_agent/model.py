# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of the agent say to each other: members, measurements, verdicts, the view of an engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

API = 1  # of the control socket and of what agents tell each other; a mismatch is refused before the first drain

Administrative = Literal["active", "drained"]
Health = Literal["up", "degraded", "down"]
PeerState = Literal["up", "down", "drain"]


@dataclass(frozen=True)
class Member:
    """A replica as a membership file names it."""

    id: str  # <host>/<name>
    pool: str
    address: str
    port: int
    model: str  # what a completion probe asks for


@dataclass(frozen=True)
class Scrape:
    """What one ``/metrics`` of vLLM told, summed over its engines. Seconds and bytes; None is not told."""

    running: int
    waiting: int
    steps: int  # vllm:iteration_tokens_total_count: stands still when the engine does
    kv_usage: float  # 0 to 1
    resident_bytes: int | None
    ttft_sum: float
    ttft_count: int
    queue_sum: float
    queue_count: int


@dataclass(frozen=True)
class Observed:
    """What the engine saw of a replica since it started: counters of answers, and failures since the last success.

    A failure is a connect error, a reset, a time-out or a 5xx other than 503.
    """

    good: int = 0
    failed: int = 0
    failed_in_row: int = 0


@dataclass(frozen=True)
class Verdict:
    """Where a replica stands. ``kind`` says how sure a ``down`` is: facts hold always, judgements stop at the floor."""

    health: Health
    in_rotation: bool  # as far as health goes; the administrative state comes on top
    weight: float  # 0 < weight <= 1, for the engine
    reason: str  # one clause for people, "" when all is well
    kind: Literal["", "fact", "judgement"]
    held: bool  # it would be out, but the floor or the panic rule keeps it in
    since: float  # wall-clock second (time.time) of the last change
    wedged_since: float | None  # wall-clock second since which nothing was generated though work was there


@dataclass(frozen=True)
class Change:
    """One transition, for the log: what, from, to, why, with the numbers that decided."""

    replica: str
    event: str
    before: str
    after: str
    reason: str
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A replica as an engine sees it."""

    id: str
    pool: str
    address: str
    port: int
    state: PeerState
    weight: float = 1.0
    since: float = 0  # wall-clock second of its return: slow start counts from here; 0 is long ago


@dataclass(frozen=True)
class View:
    """All that an engine must know to choose a replica."""

    peers: tuple[Peer, ...] = ()
    slow_start: float = 10  # seconds in which a replica that returns grows to its full share; 0 is at once
    retry_percent: float = 20  # second tries of a pool, as a share of its requests
    retry_burst: int = 20  # second tries of a pool that are allowed besides

    @cached_property
    def id(self) -> str:
        """A digest of the meaning, by which an engine confirms the view."""
        text = json.dumps(self.document(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def document(self) -> dict[str, Any]:
        """The view as JSON has it, without its id."""
        return {
            "version": API,
            "slow_start": self.slow_start,
            "retry_percent": self.retry_percent,
            "retry_burst": self.retry_burst,
            "peers": [dict(vars(peer)) for peer in self.peers],
        }

    def text(self) -> str:
        """The JSON text that is stored and sent, with its id."""
        return json.dumps({"id": self.id, **self.document()}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> View:
        """Read ``text()`` back; ValueError (KeyError, TypeError) for anything else."""
        found: Mapping[str, Any] = json.loads(text)
        peers = tuple(Peer(**peer) for peer in found["peers"])
        return cls(peers, found["slow_start"], found["retry_percent"], found["retry_burst"])
