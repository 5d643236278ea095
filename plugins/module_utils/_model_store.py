# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights on disk: ``<root>/<name>/<revision>/``, immutable, with ``SHA256SUMS``.

A revision is written aside, checked, checksummed, and becomes visible by one rename. Killed at any moment, this leaves
either no revision or a whole one; what it had written aside is removed, or gone on with, by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _safetensors
from ._revision import revision_problem, source_problem
from ._safetensors import ModelError

SUMS = "SHA256SUMS"
_INCOMING = ".incoming"
_CHUNK = 8 << 20
# What the hub's own command leaves in the directory; and file-system noise.
_LEFT_OUT = (".cache", ".git", ".gitattributes", SUMS)


@dataclass
class Request:
    """One revision that should be there: see the module's options."""

    name: str
    revision: str
    source: str
    root: str
    move: bool = False
    hub_command: str = "hf"
    hub_token: str | None = None
    hub_endpoint: str | None = None
    include: Sequence[str] = field(default_factory=list)
    exclude: Sequence[str] = field(default_factory=list)
    reader: str | None = None
    min_free_bytes: int = 1 << 30
    verify: str = "size"

    @property
    def path(self) -> pathlib.Path:
        """Where the revision lies once it is whole."""
        return pathlib.Path(self.root) / self.name / self.revision

    @property
    def incoming(self) -> pathlib.Path:
        """Where it is written until then: on the same file system, so that the rename is atomic."""
        return pathlib.Path(self.root) / _INCOMING / f"{self.name}@{self.revision}"


def validate(request: Request) -> None:
    """Raise ModelError for a request that can never succeed; touches nothing."""
    wrong = source_problem(request.source)
    if wrong:
        raise ModelError(f"source {wrong}")
    wrong = revision_problem(request.source, request.revision)
    if wrong:
        raise ModelError(f"revision {wrong}")
    if "/" in request.name or request.name.startswith(".") or not request.name:
        raise ModelError(f"name is {request.name!r}: it becomes a directory, so use no slash and no dot at its begin")


def present(request: Request, *, check_mode: bool = False) -> dict[str, Any]:
    """Bring the revision to the disk unless it is there; return path, files, size_bytes, sums, changed."""
    validate(request)
    if request.path.exists():
        verify(request)
        return _facts(request, changed=False)
    if request.source.startswith("controller://"):
        # The controller's files are brought by the caller, who then calls with the transfer directory as the source.
        return {
            **_nothing_yet(request),
            "transfer": str(request.incoming.with_name(request.incoming.name + ".transfer")),
        }
    if check_mode:
        return _nothing_yet(request)
    pathlib.Path(request.root).mkdir(parents=True, exist_ok=True, mode=0o755)
    with _lock(request):
        if not request.path.exists():  # a run beside this one may have finished it
            _fetch(request)
            _seal(request)
    return _facts(request, changed=True)


def _nothing_yet(request: Request) -> dict[str, Any]:
    return {"path": str(request.path), "changed": True, "files": [], "size_bytes": 0}


def absent(request: Request, *, check_mode: bool = False) -> dict[str, Any]:
    """Remove a revision: renamed aside first, so that a killed removal leaves nothing that looks whole."""
    found = request.path.exists() or request.incoming.exists()
    if found and not check_mode:
        with _lock(request):
            doomed = request.incoming.with_name(request.incoming.name + ".removed")
            doomed.parent.mkdir(parents=True, exist_ok=True)
            if request.path.exists():
                request.path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            shutil.rmtree(request.incoming, ignore_errors=True)
            with contextlib.suppress(OSError):
                request.path.parent.rmdir()  # only when it was the last revision
    return {"path": str(request.path), "changed": found}


def verify(request: Request) -> None:
    """Check a revision that is there: ``size`` by structure and lengths, ``sha256`` by every byte."""
    if request.verify == "none":
        return
    sums = read_sums(request.path / SUMS)
    if sums is None:
        raise _broken(request, f"has no {SUMS}, so it was not staged by this collection")
    missing = sorted(name for name in sums if not (request.path / name).is_file())
    if missing:
        raise _broken(request, f"lacks {missing[0]}")
    try:
        _safetensors.check(request.path)
    except ModelError as error:
        raise _broken(request, str(error)) from error
    if request.verify == "sha256":
        for name, digest in sums.items():
            if sha256(request.path / name) != digest:
                raise _broken(request, f"holds {name}, which was altered: its SHA-256 is not that of {SUMS}")
    _check_reader(request, request.path)


def _broken(request: Request, what: str) -> ModelError:
    return ModelError(
        f"{request.path}: the revision {what}. A revision is never repaired in place: stop what uses it, remove it "
        "with state=absent, and stage it again"
    )


def _facts(request: Request, *, changed: bool) -> dict[str, Any]:
    sums = read_sums(request.path / SUMS) or {}
    size = sum((request.path / name).stat().st_size for name in sums)
    digest = sha256(request.path / SUMS) if sums else None
    return {
        "path": str(request.path),
        "changed": changed,
        "files": sorted(sums),
        "size_bytes": size,
        "sums_sha256": digest,
    }


@contextlib.contextmanager
def _lock(request: Request) -> Iterator[None]:
    """Hold the lock of this revision: a second run waits, and then finds the work done."""
    folder = pathlib.Path(request.root) / _INCOMING
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    with open(folder / f"{request.name}@{request.revision}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(request: Request) -> None:
    scheme, _, rest = request.source.partition("://")
    if scheme == "hf":
        _download(request, rest)
    elif scheme == "file" and not request.move:
        _copy(request, pathlib.Path(rest))
    elif scheme == "file":
        shutil.rmtree(request.incoming, ignore_errors=True)
        pathlib.Path(rest).rename(request.incoming)


def _copy(request: Request, source: pathlib.Path) -> None:
    if not source.is_dir():
        raise ModelError(f"source {request.source}: no directory {source} on this host: mount it, or mend the path")
    files = _files(source)
    needed = sum((source / name).stat().st_size for name in files)
    _check_space(request, needed)
    shutil.rmtree(request.incoming, ignore_errors=True)  # of a run that was killed
    for name in files:
        target = request.incoming / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
    if (source / SUMS).is_file():
        shutil.copyfile(source / SUMS, request.incoming / SUMS)


def _download(request: Request, repository: str) -> None:
    """Let the hub's own command fetch; what it had fetched before it was killed, it does not fetch again."""
    _check_space(request, 0)
    command = [request.hub_command, "download", repository, "--revision", request.revision, "--quiet"]
    command += ["--local-dir", str(request.incoming)]
    command += [word for pattern in request.include for word in ("--include", pattern)]
    command += [word for pattern in request.exclude for word in ("--exclude", pattern)]
    env: dict[str, str] = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    env["HF_HOME"] = str(request.incoming.with_name(request.incoming.name + ".home"))
    if request.hub_token:
        env["HF_TOKEN"] = request.hub_token  # by environment: a command line is open to every user of the host
    if request.hub_endpoint:
        env["HF_ENDPOINT"] = request.hub_endpoint
    try:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise ModelError(f"{request.hub_command}: cannot be run ({error}): install the environment first") from error
    if done.returncode != 0:
        told = done.stdout.decode(errors="replace").strip().splitlines()[-5:]
        text = " ".join(line.strip() for line in told).replace(request.hub_token or "\0", "***")
        raise ModelError(f"hf download {repository} at {request.revision} ended with {done.returncode}: {text}")
    shutil.rmtree(env["HF_HOME"], ignore_errors=True)
    shutil.rmtree(request.incoming / ".cache", ignore_errors=True)


def _seal(request: Request) -> None:
    """Check what lies aside, write its checksums, and make it visible under its name."""
    folder = request.incoming
    if not folder.is_dir():
        raise ModelError(f"{folder}: nothing was brought for {request.source}: look at the source")
    _safetensors.check(folder)
    expected = read_sums(folder / SUMS)
    sums = {name: sha256(folder / name) for name in _files(folder)}
    for name, digest in (expected or {}).items():
        if sums.get(name) != digest:
            state = "is missing" if name not in sums else f"was altered: SHA-256 {sums[name]}, expected {digest}"
            raise ModelError(
                f"{request.source}: {name} {state}. The source's own {SUMS} says so: copy the source again"
            )
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    _check_reader(request, folder)
    request.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    folder.rename(request.path)
    _sync(request.path.parent)


def _files(folder: pathlib.Path) -> list[str]:
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(name) for name in names if name.parts[0] not in _LEFT_OUT]


def _check_space(request: Request, needed: int) -> None:
    free = shutil.disk_usage(request.root).free
    if free < needed + request.min_free_bytes:
        raise ModelError(
            f"{request.root}: {free / 1e9:.1f} GB free, and {request.name} {request.revision} needs {needed / 1e9:.1f} "
            f"GB plus {request.min_free_bytes / 1e9:.1f} GB to spare (min_free_bytes): free it, or set llm_model_root"
        )


def _check_reader(request: Request, folder: pathlib.Path) -> None:
    """Raise ModelError when the service user cannot read the files: vLLM would say that they are not there."""
    if not request.reader or os.geteuid() != 0:
        return
    command = [
        "runuser",
        "-u",
        request.reader,
        "--",
        "find",
        str(folder),
        "-type",
        "f",
        "!",
        "-readable",
        "-print",
        "-quit",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0 or told:
        raise ModelError(
            f"{folder}: the user {request.reader!r} cannot read it ({told}): open the directories above it"
        )


def read_sums(path: pathlib.Path) -> dict[str, str] | None:
    """Return file name -> SHA-256 of a ``SHA256SUMS`` file, or None when there is none."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name.lstrip("*"): digest.lower() for digest, _, name in (line.partition("  ") for line in lines) if name}


def sha256(path: pathlib.Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def difference(request: Request, result: Mapping[str, Any], before: bool) -> dict[str, str]:
    """Return the diff of a run as ansible prints it."""
    line = f"{request.path}\n"
    after = before if not result["changed"] else not before
    return {"before": line if before else "", "after": line if after else ""}
