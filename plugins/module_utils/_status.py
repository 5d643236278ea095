# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a fleet as rows and as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = ("replica", "pool", "release", "pending", "model", "revision", "health", "running", "waiting", "kv")
UNREACHABLE = "unreachable"


def rows(replicas: Iterable[Mapping[str, Any]], seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Join the replicas of the inventory with what each host told.

    ``seen`` maps a host name to the result of ``vllm_info`` there, or to nothing where the host could not be asked:
    then the row says so. ``pending`` is the release that is staged, but not current.
    """
    found = []
    for replica in replicas:
        told = seen.get(replica["host"]) or {}
        facts: Mapping[str, Any] = next((row for row in told.get("replicas") or [] if row["id"] == replica["id"]), {})
        row = {"id": replica["id"], "host": replica["host"], "pool": replica["pool"], "profile": replica["profile"]}
        row |= {"address": replica["address"], "port": replica["port"]}
        row |= {key: facts.get(key) for key in ("model", "revision", "version", "running", "waiting", "kv_cache_usage")}
        row |= {key: facts.get(key) for key in ("release", "previous", "pending")}
        row["health"] = facts.get("health", UNREACHABLE)
        row["reason"] = facts.get("reason") or ("" if facts else told.get("msg", "the host did not answer"))
        found.append(row)
    return found


def table(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the rows as lines of one table; what is not known is a dash."""
    lines: list[tuple[str, ...]] = [COLUMNS]
    reasons = []
    for row in found:
        usage = row["kv_cache_usage"]
        cells = [row["id"], row["pool"], row["release"], row["pending"], row["model"], row["revision"], row["health"]]
        cells += [row["running"], row["waiting"], None if usage is None else f"{usage:.0%}"]
        lines.append(tuple("-" if cell in (None, "") else str(cell) for cell in cells))
        if row["reason"]:
            reasons.append(f"{row['id']}: {row['reason']}")
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return shown + reasons
