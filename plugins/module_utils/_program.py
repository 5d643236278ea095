# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of ours on a host: its files in a directory named by their digest, behind a link to the one in force.

A module brings the files that it imports along, so no task copies them one by one. A new version replaces the old one
at once or, when the run is cut short, not at all.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

BASE = "ansible_collections.llmops.vllm.plugins.module_utils"
LINK = "current"


class Program:
    """What ``modules`` (full names) and all that they import of ``module_utils`` are, at ``root`` on this host."""

    def __init__(self, root: Path, modules: Iterable[str]) -> None:
        self._root = root
        self._files = _with_imports(modules)
        digest = hashlib.sha256()
        for name, source in sorted(self._files.items()):
            digest.update(f"{name}\n{source}\n".encode())
        #: twelve hexadecimal digits; the name of the directory
        self.version = digest.hexdigest()[:12]

    def in_force(self) -> str:
        """Return the version that the link names, empty when there is none."""
        link = self._root / LINK
        return link.readlink().name if link.is_symlink() else ""

    def whole(self) -> bool:
        """Tell whether this version lies there, each file as it should be."""
        place = self._root / self.version
        try:
            return all((place / name).read_text(encoding="utf-8") == text for name, text in self._files.items())
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return False

    def install(self) -> None:
        """Write this version, point the link to it, remove the others. LlmopsError: what is in the way."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o755)  # whatever the umask of the run
            if not self.whole():
                self._write()
            self._switch()
            for other in self._root.iterdir():
                if other.name not in (LINK, self.version):
                    shutil.rmtree(other)
        except OSError as problem:
            raise LlmopsError(f"{self._root}: this version of the program cannot be installed: {problem}") from problem

    def _write(self) -> None:
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        for name, text in self._files.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        for directory in [beside, *(each for each in beside.rglob("*") if each.is_dir())]:
            directory.chmod(0o755)
        shutil.rmtree(self._root / self.version, ignore_errors=True)
        beside.rename(self._root / self.version)

    def _switch(self) -> None:
        if self.in_force() == self.version:
            return
        beside = self._root / ".link"
        beside.unlink(missing_ok=True)
        beside.symlink_to(self._root / self.version)
        beside.replace(self._root / LINK)


def _with_imports(modules: Iterable[str]) -> dict[str, str]:
    """Return path and source of ``modules`` and of all modules of ours that they import, at whatever depth."""
    found: dict[str, str] = {}
    wanted = list(modules)
    while wanted:
        name = wanted.pop()
        path = name.replace(".", "/") + ".py"
        if path in found:
            continue
        found[path] = _source(name)
        for node in ast.walk(ast.parse(found[path])):
            if isinstance(node, ast.ImportFrom):
                where = importlib.util.resolve_name("." * node.level + (node.module or ""), name.rpartition(".")[0])
                if f"{where}.".startswith(f"{BASE}."):
                    wanted += [where] if _is_file(where) else [f"{where}.{each.name}" for each in node.names]
    return found


def _is_file(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is None


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    read = getattr(spec.loader, "get_source", None) if spec is not None else None
    source = read(name) if read is not None else None
    if source is None:
        raise LlmopsError(f"the source of {name} did not come along with the module: this is a bug of the collection")
    # ansible's own loader gives bytes
    return source.decode("utf-8") if isinstance(source, bytes) else str(source)
