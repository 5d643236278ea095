# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's documents as lines for a person: what is wrong first, one line a replica, reasons below it."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = ("replica", "state", "health", "rotation", "in flight", "running", "waiting", "since")
WIDTH = 100


def status(document: Mapping[str, Any], now: float) -> list[str]:
    """Lay out a ``status`` document; ``now`` is the wall-clock second from which ages are counted."""
    balancer, engine = document["balancer"], document["engine"]
    host = document["agent"]["host"]
    stands = [
        balancer["state"] if balancer["state"] == "present" else "AWAY (operator)",
        "may hold the address" if balancer["may_hold_address"] else "MUST NOT HOLD THE ADDRESS",
        "synced" if balancer["synced"] else "NOT YET SYNCED with its peers",
    ]
    lines = [f"{host}: {', '.join(stands)}; generation {document['generation']}", _engine(document["agent"], engine)]
    for peer in document["peers"]:
        seen = "never seen" if peer["seconds_ago"] is None else f"seen {_age(peer['seconds_ago'])} ago"
        lines.append(f"peer {peer['name']}: {'answers' if peer['reachable'] else 'DOES NOT ANSWER'}, {seen}")
    for problem in document["membership"]["problems"]:
        lines += _wrapped(f"PROBLEM: {problem}", "  ")
    for pool in document["pools"]:
        lines += ["", *_pool(pool, [row for row in document["replicas"] if row["pool"] == pool["name"]], now)]
    return lines


def _engine(agent: Mapping[str, Any], engine: Mapping[str, Any]) -> str:
    if not engine["alive"]:
        return f"engine {agent['engine']}: DEAD ({engine['reason']})"
    if not engine["confirmed"]:
        return f"engine {agent['engine']}: runs view {engine['view'] or '-'}, NOT YET {engine['wanted_view']}"
    return f"engine {agent['engine']}: runs view {engine['view']}, confirmed"


def _pool(pool: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    head = f"pool {pool['name']}: {pool['in_rotation']} of {pool['members']} in rotation, minimum {pool['minimum']}"
    if pool["panic"]:
        head += "; PANIC: mostly bad, nobody is taken out"
    if pool["lease"]:
        head += f"; leased by {pool['lease']['holder']} for {_age(pool['lease']['expires_in'])} more"
    cells = [COLUMNS, *(_cells(row, now) for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(COLUMNS))]
    lines = [head]
    for line, row in zip(cells, [None, *rows]):
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        for text in _whys(row) if row is not None else ():
            lines += _wrapped(f"    {text}", "      ")
    return lines


def _cells(row: Mapping[str, Any], now: float) -> tuple[str, ...]:
    numbers = [row["inflight"], row["running"], row["waiting"]]
    shown = ["-" if number is None else str(number) for number in numbers]
    since = _since(row["since"], now)
    rotation = ("in, held" if row["held"] else "in") if row["in_rotation"] else "OUT"
    return (row["id"], row["administrative"], row["health"], rotation, *shown, since)


def _whys(row: Mapping[str, Any]) -> Iterable[str]:
    if row["note"] and row["administrative"] == "drained":
        yield f"drained: {row['note']}"
    if row["reason"]:
        yield f"{row['health']}: {row['reason']}" + (" (kept in: the pool needs it)" if row["held"] else "")


def explain(row: Mapping[str, Any], now: float) -> list[str]:
    """Lay out why a replica is in rotation or not."""
    verdict = "IN rotation" if row["in_rotation"] else "OUT of rotation"
    lines = [
        f"{row['id']} ({row['address']}:{row['port']}, pool {row['pool']}) is {verdict}",
        f"  {'state':<14} {row['administrative']} (generation {row['generation']})",
        f"  {'health':<14} {row['health']}" + (f", a {row['kind']}" if row["kind"] else ""),
    ]
    lines.append(f"  {'since':<14} {_since(row['since'], now)}")
    lines.append(f"  {'weight':<14} {row['weight']:g}")
    for text in _whys(row):
        lines += _wrapped(f"  {'because':<14} {text}", " " * 17)
    numbers = {"in flight": row["inflight"], "running": row["running"], "waiting": row["waiting"], **row["numbers"]}
    lines.append("last numbers")
    lines += [f"  {name:<24} {_number(value)}" for name, value in numbers.items()]
    if row["incident"]:
        lines.append("incident")
        for name, value in row["incident"].items():
            lines += _wrapped(f"  {name:<24} {_number(value)}", " " * 27)
    lines.append("history, the last first" if row["history"] else "history: none since the agent started")
    for change in reversed(row["history"]):
        why = f": {change['reason']}" if change["reason"] else ""
        text = (
            f"  {_since(change['time'], now):>7} ago  {change['event']}: {change['before']} -> {change['after']}{why}"
        )
        lines += _wrapped(text, " " * 13)
    return lines


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


def _since(moment: str, now: float) -> str:
    """How long ago a moment was that the API writes as 2027-01-31T03:00:00Z."""
    try:
        # fromisoformat knows no Z before Python 3.11
        second = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return "-"
    return _age(now - second)


def _age(seconds: float) -> str:
    """A span in the two signs that matter: 45 s, 12 min, 3 h, 5 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]
