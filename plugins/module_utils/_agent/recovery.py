# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which wedged replica may be restarted: the agent judges and permits, the replica's own host looks again and acts.

An agent sees the whole pool, so it alone can say that nothing else of the pool restarts; it has no rights on a server,
so a mistake here restarts nothing by itself.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Literal

from ansible_collections.llmops.vllm.plugins.module_utils._agent import files
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API, Change

PERMIT_SECONDS = 900.0  # loading a large model takes minutes; after that somebody else may have a turn
HOUR = 3600.0
REMEMBERED = 50  # incidents
RECORDS = "/var/lib/vllm-watchdog/incidents"  # on the host of the replica

State = Literal["permitted", "recovered", "expired", "withdrawn"]


@dataclass
class Incident:
    """One permit and what came of it. ``issued`` and ``ended`` are wall-clock seconds, for people."""

    incident: str
    replica: str
    pool: str
    reason: str
    issued: float
    state: State = "permitted"
    ended: float | None = None
    note: str = ""  # why it ended

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Incident:
        """Read what ``asdict`` wrote; KeyError, TypeError or ValueError for anything else."""
        incident = cls(**found)
        if incident.state not in ("permitted", "recovered", "expired", "withdrawn"):
            raise ValueError(f"state is {incident.state!r:.40}")
        texts = (incident.incident, incident.replica, incident.pool, incident.reason, incident.note)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("an incident holds something else than text")
        incident.issued = float(incident.issued)
        if not math.isfinite(incident.issued):
            raise ValueError("issued is no time")
        return incident


class Recovery:
    """Permits of this balancer's agent. ``consider`` is called each second; nothing here raises because of a disk."""

    def __init__(
        self,
        wedged_seconds: float,
        restarts_per_hour: int,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``restarts_per_hour`` counts for a pool; ``path`` is the file in which incidents outlive the agent."""
        self._wedged_seconds = wedged_seconds
        self._per_hour = restarts_per_hour
        self._path, self._clock, self._wall = path, clock, wall
        self._incidents: list[Incident] = []  # the oldest first
        self._began: dict[str, float] = {}  # by incident, in seconds of the clock: a stepped wall clock changes nothing
        self._refused: dict[str, str] = {}  # by replica: what was said last
        self._saved = True
        self._trouble = self._aside = ""
        self._load()

    @property
    def problems(self) -> list[str]:
        """What is wrong with the file, in words; empty when nothing is."""
        return [text for text in (self._trouble, self._aside) if text]

    # --- what is told

    def permits(self) -> list[dict[str, Any]]:
        """Permits in force, as the hosts of the replicas read them."""
        return [
            {
                "replica": one.replica,
                "incident": one.incident,
                "pool": one.pool,
                "reason": one.reason,
                "issued": round(one.issued, 3),
                "expires_in": round(PERMIT_SECONDS - self._age(one), 1),
            }
            for one in self._running()
            if self._age(one) < PERMIT_SECONDS
        ]

    def incident_of(self, replica: str) -> dict[str, Any] | None:
        """Return the last incident of a replica with the place of its flight record, None when there was none."""
        for one in reversed(self._incidents):
            if one.replica == replica:
                host = replica.partition("/")[0]
                return {**asdict(one), "record": f"{host}:{RECORDS}/{one.incident}"}
        return None

    # --- what is decided

    def consider(
        self,
        *,
        wedged: Mapping[str, float],
        pools: Mapping[str, str],
        drained: Set[str],
        leased: Set[str],
        up: Set[str],
        arbiter: bool,
        heard: Iterable[Any] = (),
    ) -> list[Change]:
        """Judge once; return what changed, for the log.

        ``wedged`` are seconds by replica, ``pools`` pools by replica, ``leased`` pools, ``up`` replicas in rotation,
        ``heard`` the permits that other agents told last. Only the arbiter permits anything.
        """
        changes: list[Change] = []
        for permit in heard:
            self._take_over(permit)
        for one in self._running():
            ending = self._ending(one, wedged, pools, drained, leased, up)
            if ending:
                changes.append(self._end(one, *ending))
        for replica in [replica for replica in self._refused if replica not in wedged]:
            del self._refused[replica]
        due = [(seconds, replica) for replica, seconds in wedged.items() if seconds >= self._wedged_seconds]
        for seconds, replica in sorted(due, key=lambda entry: (-entry[0], entry[1])) if arbiter else ():
            if replica not in pools or any(one.replica == replica for one in self._running()):
                continue
            why = self._refusal(replica, pools[replica], drained, leased)
            if not why:
                self._refused.pop(replica, None)
                changes.append(self._permit(replica, pools[replica], seconds))
            elif self._refused.get(replica) != why:
                self._refused[replica] = why
                numbers = self._numbers(pools[replica], seconds)
                changes.append(Change(replica, "restart_refused", "wedged", "wedged", why, numbers))
        if not self._saved:
            self._save()
        return changes

    def _refusal(self, replica: str, pool: str, drained: Set[str], leased: Set[str]) -> str:
        if replica in drained:
            return "the replica is drained: whoever drained it restarts it, or puts it back"
        if pool in leased:
            return f"pool {pool} is under a rollout lease"
        for one in self._running():
            if one.pool == pool:
                return f"{one.replica} of pool {pool} is being restarted (incident {one.incident}): one at a time"
        if self._last_hour(pool) >= self._per_hour:
            return f"pool {pool} has had its {self._per_hour} restarts of wedged replicas in this hour: look at it"
        return ""

    def _permit(self, replica: str, pool: str, seconds: float) -> Change:
        issued = self._wall()
        stamp = datetime.datetime.fromtimestamp(issued, datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        # the id becomes the name of a directory on the host
        name = begin = f"{stamp}-{re.sub(r'[^A-Za-z0-9]+', '-', replica)[:64]}"
        while name == begin or name in self._began:
            name = f"{begin}-{secrets.token_hex(2)}"
        reason = f"wedged for {seconds:.0f} s: it has work and generates nothing"
        self._add(Incident(name, replica, pool, reason, issued), self._clock())
        numbers = {"incident": name, **self._numbers(pool, seconds)}
        return Change(replica, "restart_permitted", "wedged", "permitted", reason, numbers)

    def _ending(
        self,
        one: Incident,
        wedged: Mapping[str, float],
        pools: Mapping[str, str],
        drained: Set[str],
        leased: Set[str],
        up: Set[str],
    ) -> tuple[State, str] | None:
        if one.replica in up and one.replica not in wedged:
            return "recovered", f"up again {self._age(one):.0f} s after the permit"
        if one.replica in drained:
            return "withdrawn", "the replica was drained"
        if one.pool in leased:
            return "withdrawn", f"pool {one.pool} came under a rollout lease"
        if one.replica not in pools:
            return "withdrawn", "the replica is no member any more"
        if self._age(one) >= PERMIT_SECONDS:
            return "expired", f"not up again {PERMIT_SECONDS:.0f} s after the permit"
        return None

    def _end(self, one: Incident, state: State, note: str) -> Change:
        one.state, one.note, one.ended = state, note, round(self._wall(), 3)
        self._saved = False
        numbers = {"incident": one.incident, "seconds": round(self._age(one), 1)}
        return Change(one.replica, f"restart_{state}", "permitted", state, note, numbers)

    def _take_over(self, permit: Any) -> None:
        """Know a permit of another agent as one's own: it counts, and goes on when that agent dies."""
        try:
            left = float(permit["expires_in"])
            found = {key: permit[key] for key in ("incident", "replica", "pool", "reason", "issued")}
            one = Incident.parse(found)
        except (KeyError, TypeError, ValueError):
            return  # nothing that an agent of this version tells
        if one.incident not in self._began and 0 < left <= PERMIT_SECONDS:
            self._add(one, self._clock() - (PERMIT_SECONDS - left))

    # --- what is known

    def _running(self) -> list[Incident]:
        return [one for one in self._incidents if one.state == "permitted"]

    def _age(self, one: Incident) -> float:
        return self._clock() - self._began[one.incident]

    def _last_hour(self, pool: str) -> int:
        return sum(one.pool == pool and self._age(one) < HOUR for one in self._incidents)

    def _numbers(self, pool: str, seconds: float) -> dict[str, Any]:
        return {"wedged_seconds": round(seconds, 1), "last_hour": self._last_hour(pool), "per_hour": self._per_hour}

    def _add(self, one: Incident, began: float) -> None:
        self._incidents.append(one)
        self._began[one.incident] = began
        # an incident that still counts is never forgotten, however many there are
        spare = len(self._incidents) - REMEMBERED
        for old in [old for old in self._incidents if self._age(old) >= HOUR][: max(0, spare)]:
            self._incidents.remove(old)
            del self._began[old.incident]
        self._saved = False

    # --- the disk

    def _load(self) -> None:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["version"] != API:
                raise ValueError(f"version {found['version']!r:.20}")
            incidents = {entry["incident"]: Incident.parse(entry) for entry in found["incidents"]}
        except FileNotFoundError:
            return
        except OSError as problem:
            self._trouble = f"{self._path} cannot be read ({problem.strerror}): earlier restarts are not counted"
            return
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            self._aside = files.set_aside(self._path, str(problem))
            return
        clock, wall = self._clock(), self._wall()
        for one in incidents.values():
            # one from the future was written before the wall clock was set back: it counts from now
            self._began[one.incident] = clock - max(0.0, wall - one.issued)
        self._incidents = list(incidents.values())

    def _save(self) -> None:
        document = {"version": API, "incidents": [asdict(one) for one in self._incidents]}
        try:
            files.write(self._path, json.dumps(document, indent=1) + "\n")
        except OSError as problem:
            self._trouble = f"{self._path} cannot be written ({problem.strerror}): restarts are counted in memory alone"
            return
        self._saved, self._trouble = True, ""
