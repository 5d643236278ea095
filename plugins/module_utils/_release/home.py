# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a replica on its host: releases that never change, and the links that say which one counts."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import Release, ReleaseError, view_of

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")
RELEASE_ID = re.compile(r"^[0-9a-f]{12}$")
DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
FILES = ("config.yaml", "environment", "unit.conf", "release.json")
METRICS = "release.prom"  # what a running replica serves, as its unit gives it to the node exporter
LINKS = ("env", "model")
POINTERS = ("current", "previous", "staged")
VERIFIED = "verified"  # a link, too: to the release that has answered completions


@dataclass
class Owner:
    """Who owns the files; resolved only when something is written."""

    user: str
    group: str

    def ids(self) -> tuple[int, int]:
        """Numbers of user and group."""
        try:
            uid = pwd.getpwnam(self.user).pw_uid
        except KeyError:
            raise ReleaseError(f"owner is {self.user}, which is no user of this host: create it first") from None
        try:
            return uid, grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise ReleaseError(f"group is {self.group}, which is no group of this host: create it first") from None


class Home:
    """``<root>/<replica>``: releases, links, lock."""

    def __init__(self, root: str, replica: str, owner: Owner) -> None:
        if not NAME.match(replica):
            raise ReleaseError(f"replica is {replica!r}: use a short name of letters, digits, - and _, such as r0")
        if not root.startswith("/") or root == "/":
            raise ReleaseError(f"root is {root!r}: give the absolute path of a directory")
        self.root = Path(root)
        self.replica = replica
        self.path = self.root / replica
        self.releases = self.path / "releases"
        self.owner = owner

    # reading

    def pointer(self, name: str) -> str:
        """The release id that a link names; empty when there is no such link."""
        try:
            return (self.path / name).readlink().name
        except OSError:
            return ""

    def previous(self) -> str:
        """The release to go back to; empty when there is none.

        While the one in force is not proven it is the one that was proven last, and the link still names the one before
        that: a release that fails and leaves again does not make its successor forget where it came from.
        """
        return self.proven_besides(self.pointer("current")) or self.pointer("previous")

    def proven_besides(self, current: str) -> str:
        """The release that was proven last, where that is another one and still there; else empty."""
        proven = self.pointer(VERIFIED)
        return proven if proven not in ("", current) and (self.releases / proven).is_dir() else ""

    def named(self, wish: str) -> str:
        """The id that is meant by an id or by the name of a link; refuses a name that means none."""
        if wish in POINTERS:
            found = self.previous() if wish == "previous" else self.pointer(wish)
            if not found:
                raise ReleaseError(f"replica {self.replica} has no {wish} release")
            return found
        if not RELEASE_ID.match(wish):
            raise ReleaseError(f"release is {wish!r}: give an id of 12 hexadecimal digits, or {' or '.join(POINTERS)}")
        return wish

    def document(self, release: str) -> dict[str, Any]:
        """``release.json`` of a release; empty when there is none."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.releases / release / "release.json").read_text(encoding="utf-8"))
            if release and isinstance(found, dict):
                return found
        return {}

    def view(self, release: str) -> dict[str, str]:
        """A release that lies on the disk, for a diff."""
        document = self.document(release)
        if not document:
            return {}
        unit = ""
        with contextlib.suppress(OSError):
            unit = (self.releases / release / "unit.conf").read_text(encoding="utf-8")
        return view_of(document, unit)

    def problem(self, release: str) -> str:
        """Why a release that lies on the disk cannot run; empty when it can."""
        directory = self.releases / release
        if not self.document(release):
            return f"is gone from {self.releases}"
        for name in FILES:
            if not (directory / name).is_file():
                return f"lacks {name}"
        for name in LINKS:
            if not (directory / name).is_dir():
                return f"needs {name} {self.document(release).get(name, '')}, which is gone"
        return ""

    def drift(self, release: Release) -> list[str]:
        """Files of a release on the disk that are not what they should be; all of them when it is not there."""
        directory = self.releases / release.id
        wrong = []
        for name, text in self._texts(release).items():
            file = directory / name
            try:
                status = file.lstat()
                content = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                wrong.append(name)
                continue
            if content != text or status.st_mode & 0o7777 != FILE_MODE or not self._owned(status):
                wrong.append(name)
        for name in LINKS:
            try:
                if str((directory / name).readlink()) != getattr(release, name):
                    wrong.append(name)
            except OSError:
                wrong.append(name)
        return wrong

    def _texts(self, release: Release) -> dict[str, str]:
        return {**release.files(), METRICS: release.metrics(self.replica)}

    def _owned(self, status: os.stat_result) -> bool:
        try:
            return (status.st_uid, status.st_gid) == self.owner.ids()
        except ReleaseError:
            return False

    # writing

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time; makes what is missing, also when another run removes the whole directory meanwhile."""
        while True:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self._directory(self.root, repair=False)
            self._directory(self.path)
            with self.held() as held:
                if held:
                    self._directory(self.releases)
                    self._sweep()
                    yield
                    return

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """The lock alone; False where there is no such replica, or none any more."""
        try:
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield self._is_lock(handle)
        finally:
            os.close(handle)

    def _is_lock(self, handle: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(handle), (self.path / ".lock").stat())
        return False

    def _directory(self, path: Path, *, repair: bool = True) -> None:
        uid, gid = self.owner.ids()
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not repair:
                return
        with contextlib.suppress(FileNotFoundError):  # another run may remove the replica at this moment
            _own(path, uid, gid, DIRECTORY_MODE)

    def _sweep(self) -> None:
        """Removes what a killed run left."""
        for left in [*self.releases.glob(".tmp-*"), *self.path.glob(".tmp-*")]:
            _remove(left)
        for left in self.root.glob(f".{self.replica}.removed-*"):
            _remove(left)

    def build(self, release: Release) -> None:
        """Makes the release directory, or repairs it; a reader sees a whole one or none."""
        target = self.releases / release.id
        if self.document(release.id):
            self._repair(release, target)
            return
        uid, gid = self.owner.ids()
        made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.releases))
        for name, text in self._texts(release).items():
            _write(made / name, text, uid, gid)
        for name in LINKS:
            (made / name).symlink_to(getattr(release, name))
        _own(made, uid, gid, DIRECTORY_MODE)
        _sync(made)
        if target.exists():  # without a readable release.json: not a release
            target.rename(self.releases / f".tmp-broken-{release.id}")
        made.rename(target)
        _sync(self.releases)
        _remove(self.releases / f".tmp-broken-{release.id}")

    def _repair(self, release: Release, target: Path) -> None:
        uid, gid = self.owner.ids()
        files = self._texts(release)
        for name in self.drift(release):
            aside = target / f".tmp-{name}"
            _remove(aside)
            if name in files:
                _write(aside, files[name], uid, gid)
            else:
                aside.symlink_to(getattr(release, name))
            aside.rename(target / name)
        _own(target, uid, gid, DIRECTORY_MODE)
        _sync(target)

    def point(self, name: str, release: str) -> None:
        """Sets a link in one step, or removes it when ``release`` is empty."""
        link = self.path / name
        if self.pointer(name) == release:
            return
        if release:
            aside = self.path / f".tmp-{name}"
            _remove(aside)
            aside.symlink_to(f"releases/{release}")
            aside.rename(link)
        else:
            link.unlink()
        _sync(self.path)

    def put(self, name: str, text: str) -> None:
        """Writes a file beside the links in one step, or removes it when ``text`` is empty."""
        if text:
            aside = self.path / f".tmp-{name}"
            _remove(aside)
            _write(aside, text, *self.owner.ids())
            aside.rename(self.path / name)
        else:
            _remove(self.path / name)
        _sync(self.path)

    def discard(self, release: str) -> None:
        """Removes a release and the links to it; one that is half removed is never seen under its name."""
        for name in (*POINTERS, VERIFIED):
            if self.pointer(name) == release:
                self.point(name, "")
        aside = self.releases / f".tmp-pruned-{release}"
        (self.releases / release).rename(aside)
        _remove(aside)

    def remove(self) -> None:
        """Removes everything of the replica."""
        aside = Path(tempfile.mkdtemp(prefix=f".{self.replica}.removed-", dir=self.root))
        self.path.rename(aside / self.replica)
        _remove(aside)
        _sync(self.root)


def _own(path: Path, uid: int, gid: int, mode: int) -> None:
    status = path.stat()
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    if status.st_mode & 0o7777 != mode:
        path.chmod(mode)


def _write(path: Path, text: str, uid: int, gid: int) -> None:
    """A new file, unreadable to others from its first moment."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchown(handle, uid, gid)
        os.fchmod(handle, FILE_MODE)
        file.write(text)
        file.flush()
        os.fsync(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
