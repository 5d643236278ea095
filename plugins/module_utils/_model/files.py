# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a model in a directory: their names, their sizes, their checksums."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from .safetensors import ModelError

SUMS = "SHA256SUMS"
# What git and the hub's own command leave in the directory: never part of a revision.
LEFT_OUT = (".cache", ".git", ".gitattributes", SUMS)
_CHUNK = 8 << 20
_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def files_of(folder: pathlib.Path) -> list[str]:
    """Return the names of the files that make the model; raise ModelError for what cannot be copied as one."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        name = str(inside)
        if inside.parts[0] in LEFT_OUT:
            continue
        if path.is_symlink() and not path.is_file():
            raise ModelError(f"{path}: is a link to a directory or to nothing: put the files themselves there")
        if "\n" in name or "\\" in name:
            raise ModelError(f"{folder}: holds {name!r}: {SUMS} cannot name it: rename it")
        if path.is_file():
            found.append(name)
    return found


def size_of(folder: pathlib.Path) -> int:
    """Return the bytes of all files below a directory, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def make_directory(path: pathlib.Path) -> None:
    """Make the directory and those above it that are missing, open to readers whatever the umask."""
    if not path.is_dir():
        make_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(0o755)


def wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether patterns select a file, as the hub's command understands them."""

    def named_by(patterns: Iterable[str]) -> bool:
        return any(fnmatch.fnmatch(name, pattern + "*" * pattern.endswith("/")) for pattern in patterns)

    return (not include or named_by(include)) and not named_by(exclude)


def read_sums(path: pathlib.Path) -> dict[str, str] | None:
    """Return file name -> SHA-256 of a ``SHA256SUMS`` file, or None when there is none."""
    return parse_sums(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else None


def parse_sums(text: str, where: str) -> dict[str, str]:
    """Return file name -> SHA-256 of such a text; ``where`` it comes from is for the message of ModelError."""
    found = {}
    for line in text.splitlines():
        parts = _SUM_LINE.fullmatch(line)
        if line.strip() and not parts:
            raise ModelError(f"{where}: the line {line[:80]!r} is none of sha256sum: write the file again with it")
        if parts:
            found[os.path.normpath(parts[2])] = parts[1].lower()
    return found


def sha256(path: pathlib.Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    found: str = hashed(path, hashlib.sha256()).hexdigest()
    return found


def git_blob(path: pathlib.Path) -> str:
    """Return the name that git gives to the file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)  # noqa: S324 - git's name for a file, no secret
    found: str = hashed(path, digest).hexdigest()
    return found


def hashed(path: pathlib.Path, digest: Any) -> Any:
    """Return the digest, updated with the file's content."""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest


def sync(path: pathlib.Path) -> None:
    """Wait until a file or directory is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
