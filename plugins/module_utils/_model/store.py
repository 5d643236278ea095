# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights on disk: ``<root>/<name>/<revision>/``, immutable, with ``SHA256SUMS``.

A revision is written aside, checked, checksummed, and becomes visible by one rename. Killed at any moment, this leaves
either no revision or a whole one; what it had written aside is removed, or gone on with, by the next run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shutil
from typing import Any

from .directory import source_directory
from .files import SUMS, files_of, read_sums, sha256, size_of
from .host import check_reader_exists, check_space
from .request import INCOMING, Request, validate
from .revision import BUCKETS
from .safetensors import ModelError
from .seal import seal
from .sources import source_of
from .tools import check_command_exists
from .verify import verify
from .workspace import idle_seconds, leftovers, lock

__all__ = ["SUMS", "Request", "abandoned", "absent", "difference", "present", "tidy", "verify"]


def present(request: Request, *, check_mode: bool = False) -> dict[str, Any]:
    """Bring the revision to the disk unless it is there; return path, files, size_bytes, sums, changed."""
    validate(request)
    if request.path.exists():
        verify(request, check_mode=check_mode)
        return _facts(request, changed=False)
    if not check_mode:
        check_reader_exists(request)
    if request.source.startswith(BUCKETS):
        check_command_exists(request.source, request.bucket_command)
    notes: list[str] = []
    if request.peers and not check_mode:
        taken = _take(request, notes)
        if taken:
            return taken
    if request.source.startswith("controller://"):
        # The controller's files are brought by the caller, who then calls with the transfer directory as the source.
        if request.size_bytes:
            check_space(request, request.size_bytes - size_of(request.transfer))
        return {**_nothing_yet(request), "transfer": str(request.transfer), "notes": notes}
    if check_mode:
        return _nothing_yet(request)
    if request.source.startswith("file://") and not request.move:
        source_directory(request)  # before a directory is made for it
    with lock(request) as held:
        staged = not request.path.exists()  # a run beside this one may have finished it
        if staged:
            _stage(request, held)
    if not staged:
        verify(request)
    if staged and request.source.startswith("hf://") and request.bandwidth_bytes_per_second:
        notes.append(f"{request.source} came without a limit of bytes a second: the hub's command knows none")
    return {**_facts(request, changed=staged), "notes": notes}


def _take(request: Request, notes: list[str]) -> dict[str, Any]:
    """Bring the revision from peers; return nothing when they fail, with a note why: the source has it, too.

    Of patterns the peers' own were heeded already.
    """
    there = dataclasses.replace(request, source=f"peers://{request.peers_sums}", include=[], exclude=[])
    with lock(there) as held:
        if not request.path.exists():
            try:
                _stage(there, held)
            except ModelError as error:
                notes.append(
                    f"{request.name} {request.revision} was not to be had from peers, so its source is asked: {error}"
                )
                return {}
            return {**_facts(request, changed=True), "notes": notes, "peer": True}
    verify(request)
    return {**_facts(request, changed=False), "notes": notes}


def _nothing_yet(request: Request) -> dict[str, Any]:
    return {"path": str(request.path), "changed": True, "files": [], "size_bytes": 0}


def absent(request: Request, *, check_mode: bool = False) -> dict[str, Any]:
    """Remove a revision: renamed aside first, so that a killed removal leaves nothing that looks whole."""
    validate(request)
    found = request.path.exists() or bool(leftovers(request))
    if found and not check_mode:
        with lock(request):
            if request.path.exists():
                doomed = request.workspace / "removed"
                shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was killed
                request.path.rename(doomed)
            for path in leftovers(request):
                shutil.rmtree(path)
            with contextlib.suppress(OSError):
                request.path.parent.rmdir()  # only when it was the last revision
    return {"path": str(request.path), "changed": found}


def abandoned(root: pathlib.Path, age: float) -> list[Request]:
    """Return those of which runs left something aside that nobody has touched for so many seconds."""
    requests = map(Request.of_workspace, sorted((root / INCOMING).glob("*@*")))
    return [request for request in requests if leftovers(request) and idle_seconds(request) >= age]


def tidy(request: Request) -> None:
    """Remove what runs left aside, and nothing else; ModelError when one is at it."""
    with lock(request):
        for path in leftovers(request):
            shutil.rmtree(path)


def _facts(request: Request, *, changed: bool) -> dict[str, Any]:
    sums = read_sums(request.path / SUMS)
    files = files_of(request.path) if sums is None else sorted(sums)
    return {
        "path": str(request.path),
        "changed": changed,
        "files": files,
        "size_bytes": sum((request.path / name).stat().st_size for name in files if (request.path / name).exists()),
        "sums_sha256": None if sums is None else sha256(request.path / SUMS),
    }


def _stage(request: Request, held: int) -> None:
    """Bring the files aside and seal them; a failure leaves what its message says."""
    source = source_of(request)
    try:
        source.bring(request, held)
        seal(request, source)
    except (ModelError, OSError) as error:
        remains = source.undo(request)
        raise ModelError(f"{str(error).rstrip('.')}. {remains}") from error


def difference(request: Request, before: bool, after: bool) -> dict[str, str]:
    """Return the diff of a run as ansible prints it: the revision is there, or it is not."""
    line = f"{request.path}\n"
    return {"before": line if before else "", "after": line if after else ""}
