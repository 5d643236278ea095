# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One membership file as a writer wrote it: strict, since a slip here takes replicas out of service."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Member
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

VERSION = 1
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}"
_ID = re.compile(rf"{_PART}/{_PART}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_KEYS = {"version", "writer", "remove_active", "replicas"}
_MEMBER_KEYS = {"id", "pool", "address", "port", "model"}


class MembershipError(LlmopsError):
    """A membership file that cannot be taken; the text begins with what is wrong in it."""


@dataclass(frozen=True)
class Roster:
    """The replicas that one writer names."""

    writer: str
    members: tuple[Member, ...]
    remove_active: bool = False  # it may drop replicas that were not drained

    def document(self) -> dict[str, Any]:
        """What ``parse`` reads."""
        replicas = [asdict(member) for member in self.members]
        head = {"version": VERSION, "writer": self.writer, "remove_active": self.remove_active}
        return {**head, "replicas": replicas}


def parse(text: str, writer: str) -> Roster:
    """Read the file of this writer; MembershipError names the first thing that is wrong."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise MembershipError(f"is no JSON: {problem}") from None
    if not isinstance(found, dict):
        raise MembershipError("is no JSON object")
    _keys(found, _KEYS, {"remove_active"}, "")
    if found["version"] != VERSION or isinstance(found["version"], bool):
        raise MembershipError(f"has version {found['version']!r:.40}; this agent reads {VERSION}")
    if found["writer"] != writer:
        raise MembershipError(f"says writer {found['writer']!r:.80}; the name of the file says {writer}")
    if not isinstance(found.get("remove_active", False), bool):
        raise MembershipError(f"says remove_active {found['remove_active']!r:.40}; true or false is wanted")
    if not isinstance(found["replicas"], list):
        raise MembershipError("has no list as replicas")
    members = tuple(_member(entry, f"replicas[{number}]") for number, entry in enumerate(found["replicas"]))
    ids: set[str] = set()
    places: dict[tuple[str, int], str] = {}
    for member in members:
        place = (member.address, member.port)
        if member.id in ids:
            raise MembershipError(f"names the replica {member.id} twice")
        if place in places:
            raise MembershipError(f"gives {member.address}:{member.port} to {places[place]} and to {member.id}")
        ids.add(member.id)
        places[place] = member.id
    return Roster(writer, members, found.get("remove_active", False))


def _keys(found: Mapping[str, Any], known: set[str], optional: set[str], where: str) -> None:
    missing, foreign = sorted(known - optional - set(found)), sorted(set(found) - known)
    if missing or foreign:
        text = f"lacks {', '.join(missing)}" if missing else f"has the unknown key {foreign[0]!r:.80}"
        raise MembershipError(f"{where} {text}".strip())


def _member(entry: Any, where: str) -> Member:
    if not isinstance(entry, dict):
        raise MembershipError(f"{where} is no object")
    _keys(entry, _MEMBER_KEYS, set(), where)
    if not isinstance(entry["id"], str) or not _ID.fullmatch(entry["id"]):
        raise MembershipError(f"{where} has the id {entry['id']!r:.80}; <host>/<name> is wanted")
    if not isinstance(entry["pool"], str) or not _WORD.fullmatch(entry["pool"]):
        raise MembershipError(f"{where} has the pool {entry['pool']!r:.80}; letters, digits, '.', '_', '-' are wanted")
    if not isinstance(entry["address"], str) or not _is_address(entry["address"]):
        raise MembershipError(f"{where} has the address {entry['address']!r:.80}; an IP address or a name is wanted")
    port = entry["port"]
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise MembershipError(f"{where} has the port {port!r:.40}; a number from 1 to 65535 is wanted")
    model = entry["model"]
    if not isinstance(model, str) or not model or not model.isprintable():
        raise MembershipError(f"{where} has the model {model!r:.80}; a name that the replica serves is wanted")
    return Member(entry["id"], entry["pool"], entry["address"], port, model)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # a last label of digits alone is a mistyped address, never a name
        last = text.rstrip(".").rpartition(".")[2]
        return bool(_HOST.fullmatch(text)) and not last.isdigit()
    return True
