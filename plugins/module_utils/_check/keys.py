# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with keys: those of clients, and those between balancers and replicas. No message ever holds one."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .problem import Problem, kind_of

CLIENT_KEY_CHARACTERS = 16
BACKEND_KEY_CHARACTERS = 32
KEY_CHARACTERS_MAX = 512
RANDOM = "such as `openssl rand -hex 32` prints"

# What RFC 6750 allows in "Authorization: Bearer <token>"; nothing in it has a meaning in NGINX's configuration.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def backend_problems(variable: str, keys: Any) -> Iterator[Problem]:
    """Yield what is wrong with the keys that replicas accept; balancers send the first."""
    if not isinstance(keys, list):
        yield Problem("", variable, "", f"is {kind_of(keys)}: give a list of keys")
        return
    if not keys:
        text = f"is empty: give a list with one secret of at least {BACKEND_KEY_CHARACTERS} characters, {RANDOM}"
        yield Problem("", variable, "", text)
        return
    for number, key in enumerate(keys):
        yield from _one(f"{variable}[{number}]", str(key), BACKEND_KEY_CHARACTERS)


def client_problems(
    variable: str,
    keys: Any,
    *,
    pools: Sequence[str],
    backend_keys: Sequence[Any],
    today: datetime.date,
    min_days: int = 0,
) -> Iterator[Problem]:
    """Yield what is wrong with the keys of clients, a list of ``{name, key, pool, expires}``.

    A key whose ``expires`` (the last day on which it may be used) is less than ``min_days`` days ahead is a problem.
    """
    if not isinstance(keys, list) or not all(
        isinstance(entry, Mapping) and {"name", "key"} <= set(entry) for entry in keys
    ):
        yield Problem("", variable, "", "is not a list of {name, key}: see inventories/example")
        return
    if not keys:
        yield Problem("", variable, "", "is empty: every request would get 401; add at least one {name, key}")
    backend = {str(key) for key in backend_keys}
    owners: dict[str, str] = {}
    pinned: dict[str, str] = {}
    for number, entry in enumerate(keys):
        name, key, pool = str(entry["name"]), str(entry["key"]), str(entry.get("pool") or "")
        where = f"{variable}[{number}] ({name})"
        if not _NAME.fullmatch(name):
            text = f"is {name!r}: use 1 to 64 letters, digits, dots, dashes and underscores"
            yield Problem("", f"{variable}[{number}].name", repr(name), text)
        yield from _one(f"{where}.key", key, CLIENT_KEY_CHARACTERS)
        if key in owners:
            text = f"is also the key of {owners[key]}: every entry needs a key of its own, {RANDOM}"
            yield Problem("", f"{where}.key", "", text)
        owners[key] = name
        if key in backend:
            text = (
                "is also a key between balancers and replicas: a client who holds it could pass by the balancer; "
                "use another key"
            )
            yield Problem("", f"{where}.key", "", text)
        if pool and pools and pool not in pools:
            text = f"is {pool!r}, which is no pool: one of {', '.join(pools)}, or none"
            yield Problem("", f"{where}.pool", repr(pool), text)
        if pinned.setdefault(name, pool) != pool:
            text = (
                f"is {pool!r}, but another key of {name} has {pinned[name]!r}: the keys of one name are one client and "
                "go to one pool"
            )
            yield Problem("", f"{where}.pool", repr(pool), text)
        yield from _expiry(f"{where}.expires", entry.get("expires"), today, min_days)


def _one(where: str, key: str, shortest: int) -> Iterator[Problem]:
    if not shortest <= len(key) <= KEY_CHARACTERS_MAX:
        text = f"has {len(key)} characters: {shortest} to {KEY_CHARACTERS_MAX} random ones are needed, {RANDOM}"
        yield Problem("", where, f"{len(key)} characters", text)
    elif not _TOKEN.fullmatch(key):
        text = (
            "has characters that a bearer token must not have: use letters, digits and - . _ ~ + / (and = at the end)"
        )
        yield Problem("", where, "", text)


def _expiry(where: str, value: Any, today: datetime.date, min_days: int) -> Iterator[Problem]:
    if value in (None, ""):
        return
    try:
        last = datetime.date.fromisoformat(str(value))
    except ValueError:
        yield Problem("", where, repr(value), f"is {str(value)!r}: give a day as YYYY-MM-DD, or leave it out")
        return
    left = (last - today).days
    mend = "add a new key under the same name, let the client change over, then remove this one"
    if left < 0:
        yield Problem("", where, str(last), f"is {last}, which has passed (today is {today}): {mend}")
    elif left < min_days:
        yield Problem("", where, str(last), f"is {last}, in {left} day(s): {mend}")
