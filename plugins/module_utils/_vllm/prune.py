# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes old releases of a host, and the environments and weights that none of its releases names any more."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_least
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._model.revision import revision_problem
from ansible_collections.llmops.vllm.plugins.module_utils._model.safetensors import ModelError
from ansible_collections.llmops.vllm.plugins.module_utils._release.home import LINKS, NAME, RELEASE_ID, Home, Owner
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import ReleaseError
from ansible_collections.llmops.vllm.plugins.module_utils._release.running import files_in_use, running_releases

COMPLETE = ".llmops-complete"  # the role vllm writes it into an environment that is whole
_ASIDE = ".removed-"
# File systems that no other host sees.
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "overlay")
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Wish:
    """What is to be pruned: see the module's options."""

    root: str
    replicas: Sequence[str] = ()  # none: every one
    keep: int = 1
    env_root: str = ""
    model_root: str = ""
    protect: Sequence[str] = ()
    min_age: float = 3600.0
    download_age: float = 604800.0

    def __post_init__(self) -> None:
        check_least(self, ReleaseError, {"keep": 0, "min_age": 0, "download_age": 0})
        for path in (path for path in (self.env_root, self.model_root, *self.protect) if path):
            if not path.startswith("/") or not os.path.normpath(path).strip("/"):
                raise ReleaseError(f"{path!r} is no absolute path of a directory: give one")


@dataclass
class Pruned:
    """What was removed, or would be in check mode; filled one by one, so that a failure tells what went before it."""

    releases: list[str] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    freed_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        removed = [*self.releases, *self.environments, *self.models]
        diff = {"before": "".join(f"{path}\n" for path in removed), "after": ""}
        return {**vars(self), "changed": bool(removed), "diff": diff}


def prune(wish: Wish, done: Pruned, *, check: bool = False) -> None:
    """Removes what is old; holds the locks of all replicas, so that nobody stages or switches meanwhile."""
    with contextlib.ExitStack() as locks:
        homes = [home for home in _homes(wish.root) if check or locks.enter_context(home.held())]
        running = running_releases()
        left: list[tuple[Home, str]] = []
        for home in homes:
            asked = not wish.replicas or home.replica in wish.replicas
            doomed = old_releases(home, wish, running) if asked and _is_inside(home) else set()
            for release in sorted(doomed):
                directory = home.releases / release
                freed = _size(directory)
                if not check:
                    home.discard(release)
                done.releases.append(str(directory))
                done.freed_bytes += freed
            left += [(home, release) for release in _releases(home) if release not in doomed]
        if not left:
            # most likely a wrong root: the environments of releases that were not found would seem to be unused
            done.notes.append(f"{wish.root} holds no release: environments and weights were left alone")
            return
        texts = "\n".join(_text_of(home, release) for home, release in left)
        if wish.env_root and _is_own(wish.env_root, done):
            _prune_environments(wish, texts, done, check=check)
        if wish.model_root and _is_own(wish.model_root, done):
            _prune_models(wish, texts, done, check=check)


def old_releases(home: Home, wish: Wish, running: set[str]) -> set[str]:
    """Releases beyond those to keep: the newest besides the current one, of these the previous one first."""
    needed = {home.pointer("current"), home.pointer("staged"), *running}
    previous = home.previous()
    ages = {release: _age(home.releases / release) for release in _releases(home) if release not in needed}
    order = sorted(ages, key=lambda release: (release != previous, ages[release]))
    kept = [release for release in order if home.document(release)][: wish.keep]
    return {release for release in order if release not in kept and ages[release] >= wish.min_age}


def _homes(root: str) -> Iterator[Home]:
    for path in sorted(Path(root).iterdir()) if Path(root).is_dir() else []:
        if NAME.match(path.name) and (path / "releases").is_dir():
            yield Home(root, path.name, Owner("root", "root"))  # nothing is written, so nobody is asked who they are


def _is_inside(home: Home) -> bool:
    """Whether the releases lie where they seem to; those behind a link are read, and left alone."""
    return home.releases.resolve() == home.root.resolve() / home.replica / "releases"


def _releases(home: Home) -> list[str]:
    return [name for name in _directories(home.releases) if RELEASE_ID.match(name)]


def _text_of(home: Home, release: str) -> str:
    """All that a release says, with the paths that its links lead to: what it names is needed."""
    directory = home.releases / release
    said = [json.dumps(home.document(release), ensure_ascii=False)]
    for name in LINKS:
        with contextlib.suppress(OSError):
            said += [str((directory / name).readlink()), str((directory / name).resolve())]
    with contextlib.suppress(OSError):
        said.append((directory / "unit.conf").read_text(encoding="utf-8"))
    if said == ["{}"]:
        raise ReleaseError(f"{directory} does not say which environment and weights it needs: stage it anew")
    return "\n".join(said)


def _prune_environments(wish: Wish, texts: str, done: Pruned, *, check: bool) -> None:
    root = Path(os.path.normpath(wish.env_root))
    if not check:
        for left in root.glob(f"{_ASIDE}*"):  # of a run that was killed
            shutil.rmtree(left)
    for path in _unused([root / name for name in _directories(root)], COMPLETE, texts, wish):
        freed = _size(path)
        if not check:
            aside = path.with_name(_ASIDE + path.name)
            path.rename(aside)  # half removed, it is never seen under its name
            shutil.rmtree(aside)
        done.environments.append(str(path))
        done.freed_bytes += freed


def _prune_models(wish: Wish, texts: str, done: Pruned, *, check: bool) -> None:
    root = Path(os.path.normpath(wish.model_root))
    revisions = [
        root / name / revision
        for name in _directories(root)
        for revision in _directories(root / name)
        if not revision_problem("", revision)
    ]
    for path in _unused(revisions, model_store.SUMS, texts, wish):
        freed = _size(path)
        try:
            # not waited for: a run that stages this very revision needs it
            model_store.absent(model_store.Request(path.parent.name, path.name, str(root), timeout=0), check_mode=check)
        except ModelError as problem:
            done.notes.append(str(problem))
            continue
        done.models.append(str(path))
        done.freed_bytes += freed
    for left in model_store.abandoned(root, wish.download_age):
        freed = _size(left.workspace)
        if not check:
            try:
                model_store.tidy(left)
            except ModelError as problem:
                done.notes.append(str(problem))
                continue
        done.models.append(str(left.workspace))
        done.freed_bytes += freed


def _unused(paths: Iterable[Path], sign: str, texts: str, wish: Wish) -> list[Path]:
    """Of these directories those that are ours and old, and that no release, no process and nobody else needs."""
    found = [path for path in paths if (path / sign).is_file() and _age(path) >= wish.min_age]
    in_use = files_in_use(found) if found else set()
    protected = [Path(path).resolve() for path in wish.protect]
    unused = []
    for path in found:
        real = path.resolve()
        named = str(path) in texts or str(real) in texts
        used = any(file.startswith(f"{real}/") for file in in_use)
        kept = any(other == real or other in real.parents or real in other.parents for other in protected)
        if not (named or used or kept):
            unused.append(path)
    return unused


def _is_own(root: str, done: Pruned) -> bool:
    """Whether no other host can see a directory: what is unused here may serve there."""
    kind = file_system(Path(root))
    if kind not in _LOCAL:
        done.notes.append(f"{root} lies on {kind}: what is there was left alone, since other hosts may use it")
    return kind in _LOCAL


def file_system(path: Path) -> str:
    """The type of the file system on which a path lies, or will lie."""
    kind, depth = "", 0
    real = path.resolve()
    for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
        before, _sep, after = line.partition(" - ")
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))  # a space is \040
        # of two mounts in the same place the later one is seen
        if (mount == real or mount in real.parents) and len(mount.parts) >= depth:
            kind, depth = after.split()[0], len(mount.parts)
    return kind


def _directories(path: Path) -> list[str]:
    """Names of the directories in a directory: no links, nothing hidden; empty when it is not there."""
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
    return []


def _age(path: Path) -> float:
    """Seconds since a directory was made, filled or moved here."""
    status = path.stat()
    return time.time() - max(status.st_mtime, status.st_ctime)


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
