# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads records of rollouts with care: a file may be old, half written or not ours, and must not break a run."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

SCHEMA = 1  # of the document; another one is not read
KEPT = 20  # records that are worth reading


def records(directory: str, pools: Any = ()) -> list[dict[str, Any]]:
    """Return the newest records of a directory that are about any of the pools, or about all; the newest is the last.

    Files are named ``<ident>.json``, and an ident begins with the time.
    """
    wanted = set(texts(pools))
    found: list[dict[str, Any]] = []
    paths = pathlib.Path(directory).expanduser().glob("*.json") if directory else ()
    for path in sorted(paths, reverse=True):
        record = _read(path)
        if readable(record) and (not wanted or wanted & set(texts(record["pools"]))):
            found.append(record)
        if len(found) == KEPT:
            break
    return found[::-1]


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def readable(record: Any) -> bool:
    """Tell whether this is a record that this code knows; what lies deeper is looked at when it is read."""
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        return False
    return isinstance(record.get("pools"), list) and isinstance(record.get("entries"), list)


def entries(record: Mapping[str, Any], pool: str = "") -> list[Mapping[str, Any]]:
    """Return the entries of a record, or those of one pool."""
    found = [entry for entry in record["entries"] if isinstance(entry, Mapping)]
    return [entry for entry in found if not pool or pool in texts(entry.get("pools"))]


def steps(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each step; of a step that was done twice, those of both."""
    found: dict[str, float] = {}
    for step in mappings(entry.get("steps")):
        seconds = number(step.get("seconds"))
        if step.get("name") and seconds is not None:
            found[str(step["name"])] = found.get(str(step["name"]), 0.0) + seconds
    return found


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Return what is a mapping in what should be a list of them."""
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, (list, tuple)) else iter(())


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the value, or an empty one where it should be a mapping and is none."""
    return value if isinstance(value, Mapping) else {}


def texts(value: Any) -> list[str]:
    """Return a list of texts; a single text counts as one of them."""
    if isinstance(value, str):
        return [value] if value else []
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def number(value: Any) -> float | None:
    """Return a number of 0 or more, which templates may have made a text; None for what is none."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found >= 0 else None


def count(value: Any) -> int:
    """Return a whole number of 0 or more, 0 for what is none."""
    return int(number(value) or 0)


def timestamp(value: Any) -> float | None:
    """Return the seconds since 1970 of an ISO 8601 text, in UTC unless it says otherwise; None for what is none."""
    try:
        told = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()
