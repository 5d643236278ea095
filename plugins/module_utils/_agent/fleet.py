# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replicas that this agent probes: members, a judge for each pool, probes for each replica."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ansible_collections.llmops.vllm.plugins.module_utils._agent.judge import PoolJudge
from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import (
    Administrative,
    Change,
    Member,
    Observed,
    Scrape,
    Verdict,
)
from ansible_collections.llmops.vllm.plugins.module_utils._agent.prober import Probes


class Fleet:
    """Holds judges and probes in step with the members."""

    def __init__(self, limits: Limits, key: str, remembered: Mapping[str, bool]) -> None:
        self._limits, self._key, self._remembered = limits, key, remembered
        self.members: dict[str, Member] = {}
        self.judges: dict[str, PoolJudge] = {}
        self._probes: dict[str, Probes] = {}

    def set_members(self, members: Iterable[Member]) -> None:
        """Make these the members; what is known of those that stay is kept."""
        wanted = {member.id: member for member in members}
        for ident, member in self.members.items():
            if wanted.get(ident) != member:
                self._probes.pop(ident).close()
        pools: dict[str, list[str]] = defaultdict(list)
        for member in wanted.values():
            pools[member.pool].append(member.id)
        for pool in [pool for pool in self.judges if pool not in pools]:
            del self.judges[pool]
        for pool, ids in pools.items():
            judge = self.judges.get(pool)
            if judge is None:
                judge = self.judges[pool] = PoolJudge(pool, self._limits, time.monotonic, time.time)
            judge.set_members(ids, self._remembered)
        self._remembered = {}  # of the last run of the agent: it counts for the first members alone
        for ident, member in wanted.items():
            if ident not in self._probes:
                self._probes[ident] = Probes(member, self.judges[member.pool], self._limits, self._key)
        self.members = wanted

    def administer(self, states: Mapping[str, Administrative]) -> None:
        """Tell the judges what operators decided."""
        for ident, member in self.members.items():
            self.judges[member.pool].administer(ident, states.get(ident, "active"))

    def observe(self, seen: Mapping[str, Observed]) -> None:
        """Tell the judges what the engine saw."""
        for ident, observed in seen.items():
            if ident in self.members:
                self.judges[self.members[ident].pool].observed(ident, observed)

    def start_due(self) -> None:
        """Start the probes whose time has come."""
        now = time.monotonic()
        for probes in self._probes.values():
            probes.start_due(now)

    def tick(self) -> list[Change]:
        """Let time pass for the judges; returns what changed."""
        changes: list[Change] = []
        for judge in self.judges.values():
            judge.tick()
            changes += judge.changes()
        return changes

    def verdicts(self) -> dict[str, Verdict]:
        """Return where each replica stands."""
        return {ident: self.judges[member.pool].verdict(ident) for ident, member in self.members.items()}

    def load(self, ident: str) -> Scrape | None:
        """Return what the last ``/metrics`` of a replica told."""
        return self._probes[ident].last_scrape

    def close(self) -> None:
        """End all probes."""
        for probes in self._probes.values():
            probes.close()


class Resolver:
    """Addresses of members that are given by name, looked up beside the event loop; the last answer is kept."""

    SECONDS = 60.0  # between two look-ups of a name

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._asked: dict[str, float] = {}

    async def look_up(self, members: Iterable[Member]) -> None:
        """Look up the names whose answer is missing or old."""
        loop, now = asyncio.get_running_loop(), time.monotonic()
        names = {member.address for member in members if not is_literal(member.address)}
        for name in [name for name in names if now - self._asked.get(name, -self.SECONDS) >= self.SECONDS]:
            with contextlib.suppress(OSError, UnicodeError):
                found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                self._known[name] = str(found[0][4][0])
            self._asked[name] = now

    def resolved(self, members: Iterable[Member]) -> Iterator[Member]:
        """Yield the members with literal addresses; one whose name has no address (yet) is left out."""
        for member in members:
            if is_literal(member.address):
                yield member
            elif member.address in self._known:
                yield replace(member, address=self._known[member.address])


def is_literal(address: str) -> bool:
    """Tell whether this is an IP address."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(address)
        return True
    return False
