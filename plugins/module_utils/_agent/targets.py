# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the words of a person to replica ids: an id, a pool, a host, and, where it is safe, the beginning of an id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError


class TargetError(LlmopsError):
    """A word that names no replica, or more than one thing; the text says what there is."""


def resolve(words: Iterable[str], members: Mapping[str, str], prefixes: bool = False) -> list[str]:
    """Return the ids that are meant, in the order of ``members`` (id to pool), each once; TargetError otherwise."""
    wanted: set[str] = set()
    empty = True
    for word in words:
        empty = False
        wanted.update(_one(word, members, prefixes))
    if empty:
        raise TargetError(f"no target is named: name {_there(members)}")
    return [replica for replica in members if replica in wanted]


def _one(word: str, members: Mapping[str, str], prefixes: bool) -> set[str]:
    if word in members:
        return {word}
    host = {replica for replica in members if replica.partition("/")[0] == word}
    pool = {replica for replica, name in members.items() if name == word}
    if host and pool and host != pool:
        raise TargetError(
            f"{word} is a host ({', '.join(sorted(host))}) and a pool ({', '.join(sorted(pool))}): name ids"
        )
    if host or pool:
        return host or pool
    begins = [replica for replica in members if replica.startswith(word)] if prefixes and word else []
    if len(begins) == 1:
        return set(begins)
    if begins:
        raise TargetError(f"{word} is the beginning of {', '.join(begins)}: name one of them")
    raise TargetError(f"{word!r} is no replica, host or pool: name {_there(members)}")


def _there(members: Mapping[str, str]) -> str:
    if not members:
        return "one when there is any: there is no replica"
    hosts = dict.fromkeys(replica.partition("/")[0] for replica in members)
    kinds = {"a replica": list(members), "a host": list(hosts), "a pool": list(dict.fromkeys(members.values()))}
    return "; ".join(f"{kind} ({_some(names)})" for kind, names in kinds.items())


def _some(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
