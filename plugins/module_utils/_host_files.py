# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a host that belong together: all of them are checked before the first one is written."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

ATTRIBUTES = ("owner", "group", "mode")


class FilesError(LlmopsError):
    """The files cannot be what they are to be; nothing was written."""


class Host(Protocol):
    """What is needed of AnsibleModule."""

    check_mode: bool
    tmpdir: str

    def load_file_common_arguments(self, params: dict[str, Any], path: str) -> dict[str, Any]:
        """Take owner, group and mode out of options."""

    def set_fs_attributes_if_different(self, file_args: dict[str, Any], changed: bool, diff: dict[str, Any]) -> bool:
        """Give a path its owner, group and mode, or foretell it; tell whether it had others."""

    def atomic_move(self, src: str, dest: str) -> None:
        """Replace a file at once."""

    def run_command(self, args: list[str]) -> tuple[int, str, str]:
        """Run a program."""


@dataclass(frozen=True)
class Entry:
    """A directory, or a file with its ``content``, as it is to be."""

    path: Path
    attributes: Mapping[str, Any]  # owner, group and mode, None where they are to stay
    content: bytes | None = None
    validate: str = ""  # a command with %s for the file to check
    shown: bool = True  # whether a diff may hold what is in it

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise FilesError(f"path is '{self.path}', needed is a whole one, such as /etc/prometheus/prometheus.yml")
        if self.validate and "%s" not in self.validate:
            raise FilesError(f"validate of {self.path} is {self.validate!r}, needed is %s in it for the file to check")


@dataclass
class Outcome:
    """What was changed, or would be: paths, and what a diff shows of them."""

    paths: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def differs(self, path: Path, before: str, after: str) -> None:
        """Add to the diff."""
        header = {"before_header": str(path), "after_header": str(path)}
        self.diff.append({**header, "before": before, "after": after})


class Files:
    """Directories and files of one host."""

    def __init__(
        self, host: Host, directories: Sequence[Entry], files: Sequence[Entry], alone_in: Iterable[Path] = ()
    ) -> None:
        """Of the directories ``alone_in``, other files than these are removed."""
        self._host, self._directories, self._files, self._alone_in = host, directories, files, sorted(set(alone_in))
        self._outcome = Outcome()

    def bring_about(self) -> Outcome:
        """Write what differs and give each its attributes; in check mode, foretell it. FilesError: what is wrong."""
        before = {entry.path: _content(entry.path) for entry in self._files}
        differ = [entry for entry in self._files if before[entry.path] != entry.content]
        missing = [entry for entry in self._directories if not _is_directory(entry.path)]
        if not self._host.check_mode:
            self._write(missing, differ)
        for entry in self._directories:
            if entry in missing:
                self._outcome.differs(entry.path, "absent\n", "directory\n")
            self._settle(entry, differs=entry in missing, absent=entry in missing)
        for entry in self._files:
            if entry in differ and entry.shown:
                self._outcome.differs(entry.path, _text(before[entry.path]), _text(entry.content))
            elif entry in differ:
                self._outcome.differs(entry.path, "not shown\n", "not shown, another\n")
            self._settle(entry, differs=entry in differ, absent=before[entry.path] is None)
        self._remove_others()
        return self._outcome

    def _write(self, directories: Sequence[Entry], files: Sequence[Entry]) -> None:
        """Write files, after each was checked; whoever makes their directories comes between."""
        with tempfile.TemporaryDirectory(dir=self._host.tmpdir) as place:
            candidates = [(entry, Path(place, str(number))) for number, entry in enumerate(files)]
            for entry, candidate in candidates:
                candidate.write_bytes(entry.content or b"")
                self._check(entry, candidate)
            for entry in directories:
                entry.path.mkdir(mode=0o755, parents=True)
            for entry, candidate in candidates:
                if not _is_directory(entry.path.parent):
                    raise FilesError(f"{entry.path}: its directory is not there; name it among the directories")
                mask = os.umask(0o077)  # until it has its owner and mode, nobody else reads it
                try:
                    self._host.atomic_move(str(candidate), str(entry.path))
                finally:
                    os.umask(mask)

    def _check(self, entry: Entry, candidate: Path) -> None:
        if not entry.validate:
            return
        command = [word.replace("%s", str(candidate)) for word in shlex.split(entry.validate)]
        code, out, error = self._host.run_command(command)
        if code != 0:
            told = (error.strip() or out.strip() or f"exit status {code}").replace(str(candidate), str(entry.path))
            raise FilesError(f"{entry.path} is not valid, nothing was written: {command[0]} says: {told}")

    def _settle(self, entry: Entry, *, differs: bool, absent: bool) -> None:
        """Give it its owner, group and mode, which a diff shows of what was there before."""
        diff: dict[str, dict[str, Any]] = {}
        other = False
        if os.path.lexists(entry.path):  # a dry run has not made it
            options = self._host.load_file_common_arguments(dict(entry.attributes), path=str(entry.path))
            other = self._host.set_fs_attributes_if_different(options, False, diff=diff)
        if diff.get("before") and not absent:
            before, after = ("".join(f"{k}: {v}\n" for k, v in diff[side].items()) for side in ("before", "after"))
            self._outcome.differs(entry.path, before, after)
        if differs or other:
            self._outcome.paths.append(str(entry.path))

    def _remove_others(self) -> None:
        wanted = {entry.path for entry in self._files}
        for directory in self._alone_in:
            for path in sorted(directory.iterdir()) if _is_directory(directory) else ():
                if path in wanted or path.is_dir():
                    continue
                if not self._host.check_mode:
                    path.unlink()
                self._outcome.paths.append(str(path))
                self._outcome.differs(path, "file\n", "absent\n")


def _content(path: Path) -> bytes | None:
    if path.is_dir():
        raise FilesError(f"{path} is a directory, needed is a file: remove it, or give another path")
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_directory(path: Path) -> bool:
    if os.path.lexists(path) and not path.is_dir():
        raise FilesError(f"{path} is no directory: remove it, or give another path")
    return path.is_dir()


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")
