# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators and rollouts decided on this balancer, kept on disk: drained replicas, leases, presence.

Every replica's state carries a generation: one more than the highest that is known anywhere, so that the later of two
decisions wins wherever two agents meet, without any clock. A disk that fails never stops the agent: what was decided
holds in memory, is told as a problem, and is written as soon as it can be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Literal

from ansible_collections.llmops.vllm.plugins.module_utils._agent import files
from ansible_collections.llmops.vllm.plugins.module_utils._agent.admission import is_another
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API, Administrative
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

Presence = Literal["present", "away"]
MAX_GENERATION = 2**53  # what every reader of JSON still holds exactly
MAX_LEASE = 3600.0  # seconds


class StoreError(LlmopsError):
    """What was to be stored is no administrative state."""


class LeaseHeld(LlmopsError):
    """Somebody else holds the lease of the pool."""


@dataclass(frozen=True)
class Intent:
    """What was decided for one replica, as it is stored and told to peers."""

    state: Administrative = "active"
    generation: int = 0
    reason: str = ""
    by: str = ""
    at: float = 0.0  # wall-clock second (time.time)

    @classmethod
    def parse(cls, found: Any) -> Intent:
        """Read what ``asdict`` wrote; StoreError for anything else."""
        if not isinstance(found, Mapping) or set(found) != {"state", "generation", "reason", "by", "at"}:
            raise StoreError(f"{found!r:.200} is no administrative state: state, generation, reason, by, at are wanted")
        generation, at = found["generation"], found["at"]
        if found["state"] not in ("active", "drained"):
            raise StoreError(f"administrative state is {found['state']!r:.80}: active or drained is wanted")
        if isinstance(generation, bool) or not isinstance(generation, int) or not 0 <= generation < MAX_GENERATION:
            raise StoreError(f"generation is {generation!r:.80}: a number from 0 to 2^53 is wanted")
        if isinstance(at, bool) or not isinstance(at, (int, float)):
            raise StoreError(f"at is {at!r:.80}: seconds since 1970 are wanted")
        return cls(found["state"], generation, str(found["reason"]), str(found["by"]), float(at))

    def wins_over(self, other: Intent) -> bool:
        """Tell whether this decision replaces the other; of two that know nothing of each other, the drain does."""
        if self.generation != other.generation:
            return self.generation > other.generation
        return self.state == "drained" and other.state == "active"


@dataclass(frozen=True)
class Lease:
    """A pool that one holder may change, until a second of the monotonic clock."""

    holder: str
    until: float


@dataclass(frozen=True)
class Balancer:
    """Whether operators want this balancer to take traffic."""

    state: Presence = "present"
    reason: str = ""
    by: str = ""
    at: float = 0.0


class Store:
    """The administrative state of one balancer. Nothing here raises because of a disk."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        self._now = now
        self._intents: dict[str, Intent] = {}
        self._leases: dict[str, Lease] = {}
        self._balancer = Balancer()
        self._read = False  # until the file was read it is never written: it may hold drains
        self._unread: set[str] = set()  # replicas that were decided on meanwhile
        self._saved = True
        self._trouble = ""  # of the disk, gone when it works again
        self._aside = ""  # stays until the next start, so that somebody sees it
        self.retry()

    # --- what is known

    @property
    def problems(self) -> list[str]:
        """What is wrong with the file, in words; empty when nothing is."""
        return [text for text in (self._trouble, self._aside) if text]

    @property
    def generation(self) -> int:
        """The highest generation that is known."""
        return max((intent.generation for intent in self._intents.values()), default=0)

    @property
    def balancer(self) -> Balancer:
        """Whether this balancer is present or away, and why."""
        return self._balancer

    def intent(self, replica: str) -> Intent:
        """What was decided for a replica; one that nobody spoke of is active, with generation 0."""
        return self._intents.get(replica, Intent())

    def is_active(self, replica: str) -> bool:
        """Tell whether the replica may get requests, as far as operators go."""
        return self.intent(replica).state == "active"

    def admin(self) -> dict[str, dict[str, Any]]:
        """All decisions, as peers are told and as ``merge`` takes them."""
        return {replica: asdict(intent) for replica, intent in sorted(self._intents.items())}

    def lease(self, pool: str) -> Lease | None:
        """The pool's lease, or None where there is none, or an expired one."""
        lease = self._leases.get(pool)
        return lease if lease is not None and lease.until > self._clock() else None

    def leases(self) -> dict[str, dict[str, Any]]:
        """Every lease that has not expired, as peers and ``status`` are told: holder and seconds left."""
        return {pool: self.describe(lease) for pool in sorted(self._leases) if (lease := self.lease(pool)) is not None}

    def describe(self, lease: Lease) -> dict[str, Any]:
        """Holder and seconds left."""
        return {"holder": lease.holder, "expires_in": round(lease.until - self._clock(), 1)}

    # --- what is decided

    def set(self, replicas: Iterable[str], state: Administrative, reason: str, by: str) -> list[str]:
        """Decide for replicas; return those for which it changes anything. What is so already keeps its generation."""
        known = {replica: self.intent(replica) for replica in replicas}
        changed = [replica for replica, intent in known.items() if is_another(intent.state, intent.by, state, by)]
        if changed:
            generation = self.generation + 1
            intent = Intent(state, generation, reason, by, round(self._now(), 3))
            self._intents.update(dict.fromkeys(changed, intent))
            if not self._read:
                self._unread.update(changed)
            self._save()
        return changed

    def forget(self, replicas: Iterable[str]) -> None:
        """Drop what was decided for replicas that are no members any more: one that comes again begins anew."""
        known = [replica for replica in replicas if replica in self._intents]
        for replica in known:
            del self._intents[replica]
        if known:
            self._save()

    def merge(self, admin: Mapping[str, Any]) -> list[str]:
        """Take over what a peer decided later; return the replicas whose state that changes. StoreError for nonsense.

        All is judged before anything is taken over: half of a peer's word would be nobody's.
        """
        found = {str(replica): Intent.parse(entry) for replica, entry in admin.items()}
        newer = {replica: intent for replica, intent in found.items() if intent.wins_over(self.intent(replica))}
        changed = [replica for replica, intent in newer.items() if intent.state != self.intent(replica).state]
        if newer:
            self._intents.update(newer)
            self._save()
        return sorted(changed)

    def set_balancer(self, state: Presence, reason: str, by: str) -> bool:
        """Decide whether this balancer takes traffic; tell whether that changes it."""
        if state == self._balancer.state:
            return False
        self._balancer = Balancer(state, reason, by, round(self._now(), 3))
        self._save()
        return True

    def take_lease(self, pool: str, holder: str, seconds: float) -> Lease:
        """Take the pool's lease or prolong one's own, for some seconds from now; LeaseHeld when another has it."""
        self._refuse_other(pool, holder)
        lease = Lease(holder, self._clock() + min(seconds, MAX_LEASE))
        self._leases = {name: other for name, other in self._leases.items() if self.lease(name)}
        self._leases[pool] = lease
        self._save()
        return lease

    def release_lease(self, pool: str, holder: str) -> bool:
        """Give the pool's lease back; tell whether there was one. LeaseHeld when another has it."""
        self._refuse_other(pool, holder)
        if self._leases.pop(pool, None) is None:
            return False
        self._save()
        return True

    def _refuse_other(self, pool: str, holder: str) -> None:
        lease = self.lease(pool)
        if lease is not None and lease.holder != holder:
            left = self.describe(lease)["expires_in"]
            raise LeaseHeld(f"pool {pool} is leased by {lease.holder} for {left:.0f} s more: wait until it has ended")

    # --- the disk

    def retry(self) -> bool:
        """Do again what the disk refused, reading or writing; tell whether all is well. Cheap when nothing waits."""
        if not self._read:
            self._load()
        elif not self._saved:
            self._save()
        return self._read and self._saved

    def _load(self) -> None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._read = True
        except UnicodeDecodeError as problem:
            self._aside = files.set_aside(self._path, str(problem))
            self._read = True
        except OSError as problem:
            self._trouble = (
                f"{self._path} cannot be read ({problem.strerror}): what it holds is unknown, and what is decided now "
                "is kept in memory alone"
            )
            return
        else:
            self._take_over(text)
            self._read = True
        self._trouble = ""
        if not self._saved:
            self._save()

    def _take_over(self, text: str) -> None:
        try:
            intents, leases, balancer = _parse(text)
        except (ValueError, KeyError, TypeError, AttributeError, StoreError) as problem:
            self._aside = files.set_aside(self._path, str(problem))
            return
        known, self._intents = self._intents, intents
        self._intents.update({r: intent for r, intent in known.items() if intent.wins_over(self.intent(r))})
        # What was decided here before the file could be read was decided later than what it holds.
        generation = self.generation + 1
        self._intents.update({r: replace(known[r], generation=generation) for r in sorted(self._unread)})
        self._unread.clear()
        for pool, (holder, until) in leases.items():
            left = min(until - self._now(), MAX_LEASE)
            if left > 0:
                self._leases.setdefault(pool, Lease(holder, self._clock() + left))
        if self._balancer.at == 0:
            self._balancer = balancer

    def _save(self) -> None:
        self._saved = False
        if not self._read:
            return
        now, clock = self._now(), self._clock()
        document = {
            "version": API,
            "replicas": self.admin(),
            "balancer": asdict(self._balancer),
            # the wall clock, as the monotonic one begins anew with the machine
            "leases": {
                pool: {"holder": lease.holder, "until": round(now + lease.until - clock, 3)}
                for pool, lease in sorted(self._leases.items())
                if lease.until > clock
            },
        }
        try:
            files.write(self._path, json.dumps(document, indent=1, sort_keys=True) + "\n")
        except OSError as problem:
            self._trouble = (
                f"{self._path} cannot be written ({problem.strerror}): the administrative state holds in memory alone "
                "and would be lost with the agent"
            )
            return
        self._saved = True
        self._trouble = ""


def _parse(text: str) -> tuple[dict[str, Intent], dict[str, tuple[str, float]], Balancer]:
    found = json.loads(text)
    if found["version"] != API:
        raise StoreError(f"it has version {found['version']!r:.20}, this agent writes {API}")
    balancer = Balancer(**found["balancer"])
    if balancer.state not in ("present", "away"):
        raise StoreError(f"the balancer is {balancer.state!r:.20}, present or away is wanted")
    intents = {replica: Intent.parse(entry) for replica, entry in found["replicas"].items()}
    leases = {pool: (str(entry["holder"]), float(entry["until"])) for pool, entry in found["leases"].items()}
    return intents, leases, balancer
