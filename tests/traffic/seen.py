"""What was seen: by clients (rows of the load client), by agents (their log), by engines (their access log)."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .fleet import BALANCERS, Replica, sh

Row = Mapping[str, Any]

# A state in which a replica gets no request; the agent's log tells states as `before` and `after`. One that is held
# by the floor, or by the panic rule, still gets them.
_OUT = re.compile(r"^(?!.*\bheld\b).*\b(down|out|ejected|drain|drained)\b")
_ACCESS_LOG = "/var/log/nginx/llm_access.log"


@dataclass(frozen=True)
class Event:
    """A line of an agent's log: one transition of a replica, ``time`` in seconds since the epoch."""

    time: float
    event: str
    replica: str
    before: str
    after: str
    reason: str

    @property
    def leaves(self) -> bool:
        """Whether the replica left the rotation with it."""
        return bool(_OUT.search(self.after)) and not _OUT.search(self.before)

    @property
    def returns(self) -> bool:
        """Whether the replica came back with it."""
        return bool(_OUT.search(self.before)) and not _OUT.search(self.after)


def parse(log: str) -> list[Event]:
    """Return the transitions in an agent's log; other lines, which are no JSON or tell of no replica, are left out."""
    found = []
    for line in log.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and told.get("replica"):
            words = [str(told.get(name) or "") for name in ("event", "replica", "before", "after", "reason")]
            found.append(Event(_seconds(told["time"]), *words))
    return found


def _seconds(moment: Any) -> float:
    if isinstance(moment, (int, float)):
        return float(moment)
    return datetime.datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp()


def events(balancer: str, since: float) -> list[Event]:
    """Transitions that the agent of a balancer logged since a moment."""
    log = sh(balancer, f"journalctl -u llm-agent -o cat --no-pager --since @{int(since)}")
    return [event for event in parse(log) if event.time >= since]


def removals(since: float) -> dict[str, list[Event]]:
    """By balancer, replicas that left the rotation since a moment."""
    return {name: [event for event in events(name, since) if event.leaves] for name in BALANCERS}


def out_after(balancer: str, replica: Replica, since: float) -> float | None:
    """Seconds from the moment until the replica left the rotation of a balancer, None when it did not."""
    times = [event.time - since for event in events(balancer, since) if event.replica == replica.id and event.leaves]
    return times[0] if times else None


def back_after(balancer: str, replica: Replica, since: float) -> float | None:
    """Seconds from the moment until the replica came back, None when it did not."""
    times = [event.time - since for event in events(balancer, since) if event.replica == replica.id and event.returns]
    return times[0] if times else None


def bad(rows: Iterable[Row]) -> list[Row]:
    """Requests that failed, in whatever way."""
    return [row for row in rows if row["verdict"] != "good"]


def bad_before_first_byte(rows: Iterable[Row]) -> list[Row]:
    """Those that somebody in between could have saved."""
    return [row for row in bad(rows) if not row["began"]]


def bad_started_after(rows: Iterable[Row], moment: float) -> list[Row]:
    """Those that failed though they started at that moment or later."""
    return [row for row in bad(rows) if row["start"] >= moment]


def started_after(rows: Iterable[Row], moment: float) -> list[Row]:
    """Requests that started at that moment or later: there must be some, or nothing was shown."""
    return [row for row in rows if row["start"] >= moment]


def served_by(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Request id -> endpoints that an engine sent it to, for those rows that have an id and are in an access log."""
    wanted = {row["request_id"] for row in rows if row["request_id"]}
    found: dict[str, list[str]] = {}
    for name in BALANCERS if wanted else ():
        for line in sh(name, f"grep -F -f - {_ACCESS_LOG} || true", given="\n".join(sorted(wanted))).splitlines():
            told = json.loads(line)
            if told["id"] in wanted:
                found[told["id"]] = re.findall(r"[\d.]+:\d+", told["up"])
    return found


def bad_though_saved(rows: Iterable[Row], faulty: Iterable[Replica]) -> list[Row]:
    """Failed requests, but for those that were offered to two replicas, both faulty: nobody can save these."""
    failed = bad(rows)
    ups, endpoints = served_by(failed), {replica.endpoint for replica in faulty}
    offered = {row["request_id"]: ups.get(row["request_id"], []) for row in failed}
    return [row for row in failed if len(tries := offered[row["request_id"]]) < 2 or not set(tries) <= endpoints]


def bad_elsewhere(rows: Iterable[Row], faulty: Iterable[Replica]) -> list[Row]:
    """Failed requests that never met a faulty replica; a request without an id was never answered, and is not told."""
    failed = [row for row in bad(rows) if row["request_id"]]
    ups, endpoints = served_by(failed), {replica.endpoint for replica in faulty}
    return [row for row in failed if not endpoints & set(ups.get(row["request_id"], []))]
