# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the files that a ``SHA256SUMS`` names, from anywhere: side by side, gone on with after a break, each checked.

A file is written under ``.cache/partial``, hashed on the way, and gets its name when its SHA-256 is the one stated. So
whatever has a name is whole, and whatever has none is gone on with, or begun anew when it turns out to be wrong.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from .files import LEFT_OUT, SUMS, files_of, hashed, parse_sums, sha256, size_of, wanted
from .host import check_free, expect
from .request import Request
from .safetensors import ModelError
from .throttle import CHUNK, Throttle

PAUSE_S = 1.0  # before the second try; doubled before each further one
TRIES = 4  # without a byte between them
_SUMS_LIMIT = 16 << 20
_LOOK_AT_DISK_EVERY = 64 << 20


class TransferError(ModelError):
    """A file that did not come whole; ``passing``: it may, when one asks again; ``beyond``: it is not that long."""

    def __init__(self, text: str, *, passing: bool, beyond: bool = False) -> None:
        super().__init__(text)
        self.passing, self.beyond = passing, beyond


class Stream(Protocol):
    """A file on its way."""

    begin: int  # the byte with which it begins

    def read(self, limit: int) -> bytes:
        """Return the next bytes, none at the end."""

    def finish(self) -> None:
        """Raise TransferError unless the sender has sent all."""

    def close(self) -> None:
        """Let go of it, finished or not."""


class Place(Protocol):
    """Where files lie."""

    name: str  # as messages call it

    def open(self, name: str, offset: int) -> Stream:
        """Begin to read a file at a byte, or at its first one where that cannot be done; raise TransferError."""

    def size(self, names: Sequence[str]) -> int:
        """Return the size of these files together, or of all that lies there; 0 when it cannot be known before."""


def fetch(request: Request, place: Place, sums_sha256: str = "") -> None:
    """Bring everything that the place's ``SHA256SUMS`` names and the request selects to ``request.incoming``.

    ``sums_sha256``: what that file's own SHA-256 must be; empty: the place is believed.
    """
    text = _sums_text(place)
    if sums_sha256 and hashlib.sha256(text).hexdigest() != sums_sha256:
        raise TransferError(f"{place.name}/{SUMS}: is not the one that was announced", passing=False)
    sums = _selected(request, place, text)
    folder = request.incoming
    folder.mkdir(parents=True, exist_ok=True)
    for name in files_of(folder):
        if name not in sums:  # the listing has changed since a run that was killed
            (folder / name).unlink()
    _Fetch(request, place, sums).run()
    (folder / SUMS).write_bytes(text)


def _sums_text(place: Place) -> bytes:
    """Return the listing, which is small; it is asked for again like any other file."""
    text = b""
    for turn in _turns(threading.Event()):
        try:
            with contextlib.closing(place.open(SUMS, 0)) as stream:
                text = b""
                while len(text) <= _SUMS_LIMIT and (chunk := stream.read(CHUNK)):
                    text += chunk
                stream.finish()
                break
        except TransferError as error:
            if not error.passing or turn == TRIES:
                raise
    return text


def _selected(request: Request, place: Place, text: bytes) -> dict[str, str]:
    where = f"{place.name}/{SUMS}"
    try:
        sums = parse_sums(text.decode(), where)
    except UnicodeDecodeError as error:
        raise ModelError(f"{where}: is no text: write it with sha256sum") from error
    for name in sums:
        if name.startswith(("/", "../")) or name == ".." or "\\" in name:
            raise ModelError(f"{where}: names {name!r}, which lies outside of it: write it again, in that directory")
    found = {
        name: digest
        for name, digest in sums.items()
        if name.split("/")[0] not in LEFT_OUT and wanted(name, request.include, request.exclude)
    }
    if not found:
        raise ModelError(f"{where}: names no file that is wanted: write it with sha256sum, or mend include and exclude")
    return found


def _turns(stopped: threading.Event) -> Iterator[int]:
    """Count tries, with a pause before each but the first; it ends when the work was given up."""
    for turn in range(1, TRIES + 1):
        yield turn
        if stopped.wait(PAUSE_S * 2 ** (turn - 1)):
            return


class _Fetch:
    """One run over all files."""

    def __init__(self, request: Request, place: Place, sums: Mapping[str, str]) -> None:
        self._request, self._place, self._sums = request, place, sums
        self._throttle = Throttle(request.bandwidth_bytes_per_second)
        self._stopped = threading.Event()
        self._give_up = time.monotonic() + request.timeout
        self._unseen = 0  # bytes since the disk was looked at

    def run(self) -> None:
        """Bring all files; the first failure stops the others."""
        with concurrent.futures.ThreadPoolExecutor(max(1, self._request.parallel)) as pool:
            missing = [name for name, there in zip(self._sums, pool.map(self._is_there, self._sums)) if not there]
            size = self._place.size(list(self._sums)) if missing else 0
            expect(self._request, max(0, size - size_of(self._request.incoming)))
            running = [pool.submit(self._bring, name) for name in missing]
            try:
                for one in concurrent.futures.as_completed(running):
                    one.result()
            except BaseException:
                self._stopped.set()
                for one in running:
                    one.cancel()
                raise
        shutil.rmtree(self._request.incoming / ".cache", ignore_errors=True)

    def _is_there(self, name: str) -> bool:
        """Whether a run before this one brought the file; after a power cut it may be hollow."""
        path = self._request.incoming / name
        if path.is_file() and sha256(path) != self._sums[name]:
            path.unlink()
        return path.is_file()

    def _partial(self, name: str) -> pathlib.Path:
        return self._request.incoming / ".cache" / "partial" / name

    def _bring(self, name: str) -> None:
        partial, target = self._partial(name), self._request.incoming / name
        for path in (partial, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        found = self._persist(name, partial)
        if found != self._sums[name]:  # once more, from its first byte: what it went on with may have been another file
            partial.unlink()
            found = self._persist(name, partial)
        if found != self._sums[name]:
            partial.unlink()
            raise ModelError(
                f"{self._place.name}: {name} arrived altered twice: SHA-256 {found}, and {SUMS} there says "
                f"{self._sums[name]}: mend the file there, or write {SUMS} again"
            )
        partial.rename(target)

    def _persist(self, name: str, partial: pathlib.Path) -> str:
        """Bring a file although connections break; return its SHA-256. What brings it further begins the count anew."""
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            for turn in _turns(self._stopped):
                try:
                    return self._once(name, partial)
                except TransferError as error:
                    if not error.passing or turn == TRIES:
                        raise
                if partial.exists() and partial.stat().st_size > before:
                    break
            if self._stopped.is_set():
                raise TransferError(f"{self._place.name}: {name}: given up, because another file failed", passing=False)

    def _once(self, name: str, partial: pathlib.Path) -> str:
        with open(partial, "ab") as file:
            digest = hashed(partial, hashlib.sha256())
            if digest.hexdigest() == self._sums[name]:
                return self._sums[name]  # whole already, but for its name
            with contextlib.closing(self._place.open(name, file.tell())) as stream:
                if stream.begin != file.tell():
                    file.truncate(0)
                    digest = hashlib.sha256()
                while chunk := stream.read(self._throttle.chunk):
                    self._throttle.take(len(chunk))
                    file.write(chunk)
                    digest.update(chunk)
                    self._look(name, len(chunk))
                stream.finish()
            file.flush()
            os.fsync(file.fileno())
        found: str = digest.hexdigest()
        return found

    def _look(self, name: str, count: int) -> None:
        """Stop when others failed, when time is up, and before the disk is full: sizes are not always known before."""
        if self._stopped.is_set():
            raise TransferError(f"{self._place.name}: {name}: given up, because another file failed", passing=False)
        if time.monotonic() > self._give_up:
            raise ModelError(f"{self._place.name}: did not end within {self._request.timeout:g} s (timeout)")
        self._unseen += count
        if self._unseen > _LOOK_AT_DISK_EVERY:
            self._unseen = 0
            check_free(self._request)
