# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who belongs to which pool: the files ``pools.d/<writer>.json`` merged, and what must not happen by a slip.

A broken file changes nothing; a replica that is active leaves only when its writer says so in as many words. What was
merged last is kept on disk, so that a restart while a file is broken changes nothing either.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Callable

from ansible_collections.llmops.vllm.plugins.module_utils._agent import files, roster
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Member
from ansible_collections.llmops.vllm.plugins.module_utils._agent.roster import MembershipError, Roster

MAX_BYTES = 4 * 1024 * 1024
_Marks = tuple[tuple[str, int, int, int], ...]


class Membership:
    """The merged membership. ``poll`` about once a second; it reads files only when one of them has changed."""

    def __init__(self, directory: Path, memory: Path, is_active: Callable[[str], bool]) -> None:
        """``memory`` keeps the last good merge; ``is_active`` tells whether a replica is not drained."""
        self._directory = directory
        self._memory = memory
        self._is_active = is_active
        self._rosters: dict[str, Roster] = {}  # what each writer said last that could be taken
        self._owners: dict[str, str] = {}  # which writer each member is from
        self._members: dict[str, Member] = {}
        self._marks: _Marks | None = None
        self._again = False  # something was refused that may be right later
        self._unsaved = False
        self._file_problems: list[str] = []
        self._merge_problems: list[str] = []
        self._trouble = ""
        self._aside = ""
        self._recall()

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, by id."""
        return tuple(self._members[replica] for replica in sorted(self._members))

    @property
    def writers(self) -> list[str]:
        """Who wrote a file that is in force."""
        return sorted(self._rosters)

    @property
    def digest(self) -> str:
        """A short digest of the members: two balancers with the same one forward to the same replicas."""
        text = json.dumps([asdict(member) for member in self.members], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words that name the file; empty when nothing is."""
        own = [text for text in (self._trouble, self._aside) if text]
        return [*self._file_problems, *self._merge_problems, *own]

    def poll(self) -> bool:
        """Look at the files, merge what is new, and tell whether the members changed."""
        try:
            marks = self._look()
        except OSError as problem:
            self._file_problems = [
                f"{self._directory} cannot be read ({problem.strerror}): the members stay as they are"
            ]
            self._marks = None
            return False
        if marks != self._marks:
            self._marks = marks
            self._read(name for name, *_unused in marks)
        elif not self._again:
            if self._unsaved:
                self._remember()
            return False
        before = self._members
        self._merge()
        if self._members != before or self._unsaved:
            self._remember()
        return self._members != before

    def _look(self) -> _Marks:
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                # what begins with a dot is a file that is being written
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    seen = entry.stat()
                    found.append((entry.name, seen.st_mtime_ns, seen.st_ino, seen.st_size))
        return tuple(sorted(found))

    def _read(self, names: Iterable[str]) -> None:
        self._file_problems = []
        there: dict[str, Roster | None] = {}
        for name in names:
            writer = name[: -len(".json")]
            path = self._directory / name
            there[writer] = self._rosters.get(writer)
            try:
                there[writer] = roster.parse(_text(path), writer)
            except OSError as problem:
                self._keep(path, f"cannot be read: {problem.strerror}")
            except MembershipError as problem:
                self._keep(path, str(problem))
        self._rosters = {writer: said for writer, said in there.items() if said is not None}

    def _keep(self, path: Path, why: str) -> None:
        self._file_problems.append(f"{path} {why}. What this writer said before stays in force")

    def _merge(self) -> None:
        self._merge_problems = []
        wanted: dict[str, Member] = {}
        owners: dict[str, str] = {}
        # Who had a replica keeps it: a second writer that names it, too, changes nothing.
        rows = [(writer, member) for writer in sorted(self._rosters) for member in self._rosters[writer].members]
        rows.sort(key=lambda row: self._owners.get(row[1].id) != row[0])
        places: dict[tuple[str, int], str] = {}
        refused = self._refused({member.id for _writer, member in rows})
        for replica in refused:
            wanted[replica] = self._members[replica]
            owners[replica] = self._owners[replica]
            places[_place(wanted[replica])] = replica
        for writer, member in rows:
            if member.id in wanted:
                self._twice(f"the replica {member.id}", owners[member.id], writer)
            elif (holder := places.get(_place(member))) is not None:
                self._twice(f"{member.address}:{member.port} ({holder}, {member.id})", owners[holder], writer)
            else:
                wanted[member.id] = member
                owners[member.id] = writer
                places[_place(member)] = member.id
        self._members, self._owners = wanted, owners
        self._again = bool(refused)

    def _refused(self, named: set[str]) -> list[str]:
        """Members that no file names any more, although they are active and their writer does not say it is meant."""
        refused = []
        for replica in sorted(set(self._members) - named):
            owner = self._owners[replica]
            said = self._rosters.get(owner)
            if (said is None or not said.remove_active) and self._is_active(replica):
                refused.append(replica)
                path = self._directory / f"{owner}.json"
                self._merge_problems.append(
                    f"{path} {'is gone' if said is None else 'names no more'} {'with ' if said is None else ''}"
                    f"{replica}, which is active: it stays. Drain it first (llm-balancer drain {replica}), "
                    f"or write remove_active: true into that file"
                )
        return refused

    def _twice(self, what: str, first: str, second: str) -> None:
        names = [str(self._directory / f"{writer}.json") for writer in (first, second)]
        self._merge_problems.append(f"{names[0]} and {names[1]} both name {what}: that of {first} counts")

    # --- what outlives the agent

    def _remember(self) -> None:
        by_owner: dict[str, list[Member]] = {writer: [] for writer in self._rosters}
        for member in self.members:
            by_owner.setdefault(self._owners[member.id], []).append(member)
        kept = [Roster(writer, tuple(members)).document() for writer, members in sorted(by_owner.items())]
        try:
            files.write(self._memory, json.dumps(kept, indent=1, sort_keys=True) + "\n")
        except OSError as problem:
            self._unsaved = True
            self._trouble = (
                f"{self._memory} cannot be written ({problem.strerror}): a restart would not know the members"
            )
            return
        self._unsaved = False
        self._trouble = ""

    def _recall(self) -> None:
        try:
            kept = json.loads(_text(self._memory))
            rosters = [roster.parse(json.dumps(entry), str(entry["writer"])) for entry in kept]
        except FileNotFoundError:
            return
        except OSError as problem:
            self._trouble = f"{self._memory} cannot be read ({problem.strerror}): the members of before are not known"
            return
        except (ValueError, KeyError, TypeError, MembershipError) as problem:
            self._aside = files.set_aside(self._memory, str(problem))
            return
        self._rosters = {said.writer: said for said in rosters}
        self._members = {member.id: member for said in rosters for member in said.members}
        self._owners = {member.id: said.writer for said in rosters for member in said.members}


def _place(member: Member) -> tuple[str, int]:
    return member.address, member.port


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise MembershipError(f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise MembershipError(f"is no text: {problem}") from None
