# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a fleet as rows and as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = (
    "replica",
    "pool",
    "release",
    "pending",
    "model",
    "revision",
    "health",
    "drained",
    "rotation",
    "running",
    "waiting",
    "kv",
)
UNREACHABLE = "unreachable"


def rows(
    replicas: Iterable[Mapping[str, Any]], seen: Mapping[str, Any], balancers: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Join the replicas of the inventory with what each host, and each balancer, told.

    ``seen`` maps a host name to the result of ``vllm_info`` there, or to nothing where the host could not be asked:
    then the row says so. ``pending`` is the release that is staged, but not current. ``balancers`` maps those to the
    result of ``balancer_info``: the row has, for each that answered, how it treats the replica.
    """
    found = []
    treated = {host: _treatment(told) for host, told in (balancers or {}).items()}
    for replica in replicas:
        told = seen.get(replica["host"]) or {}
        facts: Mapping[str, Any] = next((row for row in told.get("replicas") or [] if row["id"] == replica["id"]), {})
        row = {"id": replica["id"], "host": replica["host"], "pool": replica["pool"], "profile": replica["profile"]}
        row |= {"address": replica["address"], "port": replica["port"]}
        row |= {key: facts.get(key) for key in ("model", "revision", "version", "running", "waiting", "kv_cache_usage")}
        row |= {key: facts.get(key) for key in ("release", "previous", "pending")}
        row |= {key: facts.get(key) for key in ("verified", "running_release")}
        row["marks"] = _marks(facts.get("releases") or {})
        row["health"] = facts.get("health", UNREACHABLE)
        row["reason"] = facts.get("reason") or ("" if facts else told.get("msg", "the host did not answer"))
        row["balancers"] = {host: ways[replica["id"]] for host, ways in treated.items() if replica["id"] in ways}
        found.append(row)
    return found


def balancers(seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tell how each balancer stands; ``seen`` maps it to the result of ``balancer_info``, or to nothing."""
    found = []
    for host, told in seen.items():
        status = (told or {}).get("status")
        row = {"name": host, "answers": bool(status), "state": None, "engine": None, "leases": [], "problems": []}
        if status:
            row |= {"state": status["balancer"]["state"], "engine": status["agent"]["engine"]}
            row["leases"] = [{"pool": pool["name"], **pool["lease"]} for pool in status["pools"] if pool["lease"]]
            row["problems"] = [*_troubles(status), *status["membership"]["problems"]]
        else:
            row["problems"] = [f"does not answer: {(told or {}).get('msg') or 'it was not asked'}"]
        found.append(row)
    return found


def table(found: Iterable[Mapping[str, Any]], balancer_rows: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return the rows as lines of one table; what is not known is a dash. What is to be said of rows follows."""
    lines: list[tuple[str, ...]] = [COLUMNS]
    notes = []
    for row in found:
        usage, ways = row["kv_cache_usage"], row["balancers"]
        cells = [row["id"], row["pool"], row["release"], row["pending"], row["model"], row["revision"], row["health"]]
        cells.append(_where(ways, {host for host, way in ways.items() if way["administrative"] == "drained"}))
        cells.append(_where(ways, {host for host, way in ways.items() if way["in_rotation"]}))
        cells += [row["running"], row["waiting"], None if usage is None else f"{usage:.0%}"]
        lines.append(tuple("-" if cell in (None, "") else str(cell) for cell in cells))
        if row["reason"]:
            notes.append(f"{row['id']}: {row['reason']}")
        notes += [f"{row['id']}: {text}" for text in (*_half_done(row), *_marked(row["marks"]), *_ways(ways))]
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    notes += _held(lease for row in balancer_rows for lease in row["leases"])
    notes += [f"{row['name']}: {text}" for row in balancer_rows for text in row["problems"]]
    return shown + notes


def _half_done(row: Mapping[str, Any]) -> Iterable[str]:
    """What a run that was interrupted left: the next rollout begins with it."""
    if row["release"] and row["running_release"] and row["running_release"] != row["release"]:
        yield f"its process was started with release {row['running_release']}, and {row['release']} is in force"
    if row["release"] and row["verified"] is False:
        yield f"release {row['release']} is in force and was never proven: the next rollout begins with it"


def _held(leases: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Which runs hold pools, each once however many balancers know it; an unused lease ends by itself."""
    left: dict[tuple[str, str], float] = {}
    for lease in leases:
        key = lease["pool"], lease["holder"]
        left[key] = max(left.get(key, 0), lease["expires_in"])
    return [f"pool {pool} is held by {holder}, for {seconds:.0f} s more" for (pool, holder), seconds in left.items()]


def _treatment(told: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    keys = ("administrative", "in_rotation", "health", "reason", "note", "inflight")
    status = (told or {}).get("status") or {"replicas": []}
    return {row["id"]: {key: row[key] for key in keys} for row in status["replicas"]}


def _marks(releases: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The marks of each release that has one, by its id."""
    known = {about["id"]: about for about in releases.values() if about}
    marks = {
        release: {mark: about[mark] for mark in ("bad", "held") if about[mark]} for release, about in known.items()
    }
    return {release: found for release, found in marks.items() if found}


def _marked(marks: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    for release, found in marks.items():
        for mark, reason in found.items():
            yield f"release {release} is marked {mark}: {reason}"


def _troubles(status: Mapping[str, Any]) -> Iterable[str]:
    if status["balancer"]["state"] == "away":
        yield "is away, by an operator"
    if not status["engine"]["alive"]:
        yield f"its engine is dead: {status['engine']['reason']}"
    elif not status["engine"]["confirmed"]:
        yield "its engine has not yet taken over what the agent wants"


def _where(ways: Mapping[str, Any], hosts: set[str]) -> str | None:
    """One word where all balancers agree, else the names of those that do."""
    if not ways:
        return None
    return "no" if not hosts else "yes" if len(hosts) == len(ways) else ",".join(sorted(hosts))


def _ways(ways: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Why a replica gets no requests, once where the balancers say the same."""
    said: dict[str, list[str]] = {}
    for host, way in ways.items():
        if way["administrative"] == "drained":
            said.setdefault(f"drained{': ' if way['note'] else ''}{way['note']}", []).append(host)
        elif not way["in_rotation"]:
            said.setdefault(f"out of rotation: {way['reason'] or way['health']}", []).append(host)
    for text, hosts in said.items():
        yield text if len(hosts) == len(ways) else f"{text} (at {', '.join(hosts)})"
