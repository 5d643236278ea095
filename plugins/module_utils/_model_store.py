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
import fnmatch
import hashlib
import json
import os
import pathlib
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _safetensors
from ._revision import revision_problem, source_problem
from ._safetensors import ModelError

SUMS = "SHA256SUMS"
_INCOMING = ".incoming"
_LOCK = "lock"
_CHUNK = 8 << 20
_POLL_S = 0.5
# Files other than weights are read by every check: a cut-off tokenizer has no header that tells. More is not cheap.
_SMALL = 64 << 20
# What git and the hub's own command leave in the directory: never part of a revision.
_LEFT_OUT = (".cache", ".git", ".gitattributes", SUMS)
_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_DOWNLOAD_SIZE = re.compile(r"totalling ([0-9]+(?:\.[0-9]+)?)([KMGTP]?)")


@dataclass
class Request:
    """One revision that should be there: see the module's options."""

    name: str
    revision: str
    root: str
    source: str = ""
    move: bool = False
    hub_command: str = "hf"
    hub_token: str | None = None
    hub_endpoint: str | None = None
    include: Sequence[str] = field(default_factory=list)
    exclude: Sequence[str] = field(default_factory=list)
    sha256sums: Mapping[str, str] = field(default_factory=dict)
    reader: str | None = None
    size_bytes: int = 0
    min_free_bytes: int = 1 << 30
    timeout: float = 14400
    verify: str = "size"

    @property
    def path(self) -> pathlib.Path:
        """Where the revision lies once it is whole."""
        return pathlib.Path(self.root) / self.name / self.revision

    @property
    def workspace(self) -> pathlib.Path:
        """Where everything else about it lies: on the same file system, so that the rename is atomic."""
        return pathlib.Path(self.root) / _INCOMING / f"{self.name}@{self.revision}"

    @property
    def incoming(self) -> pathlib.Path:
        """Where it is written until then; another source or other patterns never go on with what these began."""
        return self.workspace / f"{'move' if self.move else 'copy'}-{self._digest()}"

    @property
    def transfer(self) -> pathlib.Path:
        """Where the caller puts the files of a ``controller://`` source."""
        return self.workspace / f"transfer-{self._digest()}"

    def _digest(self) -> str:
        meaning = json.dumps([self.source, list(self.include), list(self.exclude)])
        return hashlib.sha256(meaning.encode()).hexdigest()[:8]


def validate(request: Request) -> None:
    """Raise ModelError for a request that can never succeed; touches nothing."""
    wrong = source_problem(request.source) if request.source else None  # a removal needs none
    if wrong:
        raise ModelError(f"source {wrong}")
    wrong = revision_problem(request.source, request.revision)
    if wrong:
        raise ModelError(f"revision {wrong}")
    if "/" in request.name or request.name.startswith(".") or not request.name:
        raise ModelError(f"name is {request.name!r}: it becomes a directory, so use no slash and no dot at its begin")
    if request.move and not request.source.startswith("file://"):
        raise ModelError(f"move is true and source {request.source!r}: only a file:// directory can be moved")


def present(request: Request, *, check_mode: bool = False) -> dict[str, Any]:
    """Bring the revision to the disk unless it is there; return path, files, size_bytes, sums, changed."""
    validate(request)
    if request.path.exists():
        verify(request, check_mode=check_mode)
        return _facts(request, changed=False)
    if not check_mode:
        _check_reader_exists(request)
    if request.source.startswith("controller://"):
        # The controller's files are brought by the caller, who then calls with the transfer directory as the source.
        if request.size_bytes:
            _check_space(request, request.size_bytes - _size(request.transfer))
        return {**_nothing_yet(request), "transfer": str(request.transfer)}
    if check_mode:
        return _nothing_yet(request)
    if request.source.startswith("file://") and not request.move:
        _source_directory(request)  # before a directory is made for it
    with _lock(request) as lock:
        staged = not request.path.exists()  # a run beside this one may have finished it
        if staged:
            _stage(request, lock)
    if not staged:
        verify(request)
    return _facts(request, changed=staged)


def _nothing_yet(request: Request) -> dict[str, Any]:
    return {"path": str(request.path), "changed": True, "files": [], "size_bytes": 0}


def absent(request: Request, *, check_mode: bool = False) -> dict[str, Any]:
    """Remove a revision: renamed aside first, so that a killed removal leaves nothing that looks whole."""
    validate(request)
    found = request.path.exists() or bool(_leftovers(request))
    if found and not check_mode:
        with _lock(request):
            if request.path.exists():
                doomed = request.workspace / "removed"
                shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was killed
                request.path.rename(doomed)
            for path in _leftovers(request):
                shutil.rmtree(path)
            with contextlib.suppress(OSError):
                request.path.parent.rmdir()  # only when it was the last revision
    return {"path": str(request.path), "changed": found}


def verify(request: Request, *, check_mode: bool = False) -> None:
    """Check a revision that is there: ``size`` without reading the weights, ``sha256`` by every byte."""
    if request.verify == "none":
        return
    sums = read_sums(request.path / SUMS)
    if sums is None:
        raise _broken(request, f"has no {SUMS}, so it was not staged by this collection")
    missing = sorted(name for name in sums if not (request.path / name).is_file())
    if missing:
        raise _broken(request, f"lacks {missing[0]}")
    added = sorted(name for name in _files(request.path) if name not in sums and not _is_hidden(name))
    if added:
        raise _broken(request, f"holds {added[0]}, which was put there later: {SUMS} does not name it")
    try:
        _safetensors.check(request.path)
    except ModelError as error:
        raise _broken(request, f"is damaged ({error})") from error
    for name, digest in sums.items():
        if _is_read(request, name) and sha256(request.path / name) != digest:
            raise _broken(request, f"holds {name}, which was altered: its SHA-256 is not that of {SUMS}")
    for name, digest in request.sha256sums.items():
        if sums.get(name) != digest.lower():
            raise _broken(request, f"holds {name} with SHA-256 {sums.get(name)}, and sha256sums expects {digest}")
    if not check_mode or _user_exists(request.reader):
        _check_reader(request, request.path)


def _is_read(request: Request, name: str) -> bool:
    small = not name.endswith(".safetensors") and (request.path / name).stat().st_size <= _SMALL
    return small or request.verify == "sha256"


def _is_hidden(name: str) -> bool:
    """Whether it is file-system noise (.nfs..., .snapshot), which vLLM never reads."""
    return any(part.startswith(".") for part in pathlib.PurePosixPath(name).parts)


def _broken(request: Request, what: str) -> ModelError:
    return ModelError(
        f"{request.path}: the revision {what}. A revision is never repaired in place: stop what uses it, remove it "
        "with state=absent, and stage it again"
    )


def _facts(request: Request, *, changed: bool) -> dict[str, Any]:
    sums = read_sums(request.path / SUMS)
    files = _files(request.path) if sums is None else sorted(sums)
    return {
        "path": str(request.path),
        "changed": changed,
        "files": files,
        "size_bytes": sum((request.path / name).stat().st_size for name in files if (request.path / name).exists()),
        "sums_sha256": None if sums is None else sha256(request.path / SUMS),
    }


@contextlib.contextmanager
def _lock(request: Request) -> Iterator[int]:
    """Hold the lock of this revision: a second run waits, and then finds the work done."""
    _make_directory(request.workspace)
    handle = os.open(request.workspace / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    give_up = time.monotonic() + request.timeout
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise ModelError(
                        f"{request.path}: another run has been staging it for {request.timeout:g} s (timeout) and "
                        f"still holds {request.workspace / _LOCK}: wait for it, or end it"
                    ) from None
                time.sleep(_POLL_S)
        yield handle
    finally:
        os.close(handle)


def _leftovers(request: Request) -> list[pathlib.Path]:
    """Return what runs left aside: all but the lock, which others may wait for."""
    if not request.workspace.is_dir():
        return []
    return sorted(path for path in request.workspace.iterdir() if path.name != _LOCK)


def _stage(request: Request, lock: int) -> None:
    """Bring the files aside and seal them; a failure leaves what its message says."""
    bring, undo = {
        ("hf", False): (lambda: _download(request, lock), _keep),
        ("file", False): (lambda: _copy(request), _discard),
        ("file", True): (lambda: _take(request), _give_back),
    }[request.source.partition("://")[0], request.move]
    try:
        bring()
        _seal(request)
    except (ModelError, OSError) as error:
        remains = undo(request)
        raise ModelError(f"{str(error).rstrip('.')}. {remains}") from error


def _source_directory(request: Request) -> pathlib.Path:
    source = pathlib.Path(request.source.removeprefix("file://"))
    if not source.is_dir():
        raise ModelError(f"source {request.source}: no directory {source} on this host: mount it, or mend the path")
    return source


def _copy(request: Request) -> None:
    source = _source_directory(request)
    shutil.rmtree(request.incoming, ignore_errors=True)  # of a run that was killed
    files = _files(source)
    _check_space(request, sum((source / name).stat().st_size for name in files))
    for name in [*files, *([SUMS] if (source / SUMS).is_file() else [])]:
        target = request.incoming / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)


def _discard(request: Request) -> str:
    shutil.rmtree(request.incoming, ignore_errors=True)
    return "Nothing of it remains on this host"


def _take(request: Request) -> None:
    if request.incoming.is_dir() and not pathlib.Path(request.source.removeprefix("file://")).exists():
        return  # a run was killed after it had taken the source
    source = _source_directory(request)
    shutil.rmtree(request.incoming, ignore_errors=True)
    try:
        source.rename(request.incoming)
    except OSError as error:
        raise ModelError(f"{source} cannot be moved below {request.root} ({error}): set move to false") from error


def _give_back(request: Request) -> str:
    source = pathlib.Path(request.source.removeprefix("file://"))
    if request.incoming.is_dir() and not source.exists():
        request.incoming.rename(source)
    return f"The files are still in {source}" if source.exists() else "Nothing was changed"


def _download(request: Request, lock: int) -> None:
    """Let the hub's own command fetch; what it had fetched before it was killed, it does not fetch again."""
    repository = request.source.removeprefix("hf://")
    _unused, told = _hub(request, repository, lock, ["--dry-run"])  # when it fails, the download itself says better why
    size = _DOWNLOAD_SIZE.search(told)
    needed = float(size[1]) * 1000 ** " KMGTP".index(size[2] or " ") if size else 0
    partial = sum(path.stat().st_size for path in (request.incoming / ".cache").rglob("*.incomplete"))
    _check_space(request, max(0, int(needed) - partial))
    code, told = _hub(request, repository, lock, ["--quiet"])
    # Without the hub, some versions take whatever lies in the directory for the model, and end well.
    if code != 0 or "repo cannot be accessed" in told:
        end = " ".join(line.strip() for line in told.strip().splitlines()[-5:])
        hint = "" if request.hub_token else " (a private or gated repository needs hub_token: llm_model_hub_token)"
        raise ModelError(f"hf download {repository} at {request.revision} ended with {code}: {end}{hint}")


def _hub(request: Request, repository: str, lock: int, options: Sequence[str]) -> tuple[int, str]:
    """Run ``hf download`` with these options; return its exit status and what it printed."""
    command = [request.hub_command, "download", repository, "--revision", request.revision, *options]
    command += ["--local-dir", str(request.incoming)]
    command += [word for pattern in request.include for word in ("--include", pattern)]
    command += [word for pattern in request.exclude for word in ("--exclude", pattern)]
    env: dict[str, str] = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_COLOR": "1"}
    env["HF_HOME"] = str(request.workspace / "home")
    if request.hub_token:
        env["HF_TOKEN"] = request.hub_token  # by environment: a command line is open to every user of the host
    if request.hub_endpoint:
        env["HF_ENDPOINT"] = request.hub_endpoint
    try:
        # The child holds the lock too: should this process be killed, the next run waits until the child has ended.
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            timeout=request.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"hf download {repository} at {request.revision} did not end within {request.timeout:g} s (timeout)"
        ) from error
    except OSError as error:
        raise ModelError(f"{request.hub_command}: cannot be run ({error}): install the environment first") from error
    return done.returncode, done.stdout.decode(errors="replace").replace(request.hub_token or "\0", "***")


def _keep(request: Request) -> str:
    size = _size(request.incoming)
    return f"What was downloaded ({size / 1e9:.1f} GB) stays in {request.incoming}, and the next run goes on with it"


def _hub_files(request: Request) -> dict[str, str]:
    """Return file name -> what the hub says of its content: a SHA-256, or the SHA-1 by which git names a blob.

    The hub's command writes both forms: the listing of the commit, and a record beside each file that it finished.
    """
    notes = request.incoming / ".cache" / "huggingface"
    try:
        listed = json.loads((notes / "trees" / f"{request.revision}.json").read_text(encoding="utf-8"))["files"]
        found = {name: str(about.get("lfs_sha256") or about["blob_id"]) for name, about in listed.items()}
        return {name: digest for name, digest in found.items() if _wanted(name, request.include, request.exclude)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        records = sorted((notes / "download").rglob("*.metadata"))
    found = {}
    for record in records:
        commit, digest = [*record.read_text(encoding="utf-8").splitlines(), "", ""][:2]
        name = str(record.relative_to(notes / "download"))[: -len(".metadata")]
        found[name] = digest if commit == request.revision else f"another commit, {commit}"
    if not found:
        raise ModelError(
            f"{request.hub_command}: left no record of what it downloaded: use huggingface_hub 1.0 or later"
        )
    return found


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    def named_by(patterns: Iterable[str]) -> bool:
        return any(fnmatch.fnmatch(name, pattern + "*" * pattern.endswith("/")) for pattern in patterns)

    return (not include or named_by(include)) and not named_by(exclude)


def _check_against_hub(request: Request, sums: Mapping[str, str]) -> None:
    """Raise ModelError unless every file is there as the hub describes it; the next run brings a bad one anew."""
    for name, expected in _hub_files(request).items():
        if name.split("/")[0] in _LEFT_OUT:
            continue
        if name not in sums:
            raise ModelError(f"{request.source}: {name} is missing, though the hub's command ended well: run again")
        found = sums[name] if len(expected) == 64 else _git_blob(request.incoming / name)
        if found != expected:
            (request.incoming / name).unlink()
            (request.incoming / ".cache" / "huggingface" / "download" / f"{name}.metadata").unlink(missing_ok=True)
            raise ModelError(
                f"{request.source}: {name} arrived altered: {found}, and the hub says {expected}: run again"
            )


def _git_blob(path: pathlib.Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)  # noqa: S324 - git's name for a file, no secret
    return _hash(path, digest)


def _seal(request: Request) -> None:
    """Check what lies aside, write its checksums, and make it visible under its name."""
    folder = request.incoming
    if not folder.is_dir():
        raise ModelError(f"{request.source}: nothing was brought: look at the source")
    files = _files(folder)
    links = [name for name in files if (folder / name).is_symlink()]
    if links:
        raise ModelError(f"{folder / links[0]}: is a link, and a revision must hold its own files: set move to false")
    stated = read_sums(folder / SUMS) or {}
    _safetensors.check(folder)
    sums = {name: sha256(folder / name) for name in files}
    if request.source.startswith("hf://"):
        _check_against_hub(request, sums)
        stated = {name: digest for name, digest in stated.items() if _wanted(name, request.include, request.exclude)}
    _compare(request, sums, stated, f"The source's own {SUMS} says so: copy the source again")
    _compare(request, sums, request.sha256sums, "sha256sums says so: mend it, or bring the right files")

    for name in _LEFT_OUT:
        shutil.rmtree(folder / name, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    folder.chmod(0o755)
    _make_directory(request.path.parent)
    _check_reader(request, folder)
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    (folder / SUMS).chmod(0o644)
    _sync(folder / SUMS)
    _sync(folder)
    for path in _leftovers(request):
        if path != folder:
            shutil.rmtree(path, ignore_errors=True)
    folder.rename(request.path)
    _sync(request.path.parent)


def _compare(request: Request, sums: Mapping[str, str], expected: Mapping[str, str], because: str) -> None:
    for name, digest in expected.items():
        if name.split("/")[0] not in _LEFT_OUT and sums.get(name) != digest.lower():
            state = "is missing" if name not in sums else f"was altered: SHA-256 {sums[name]}, expected {digest}"
            raise ModelError(f"{request.source}: {name} {state}. {because}")


def _files(folder: pathlib.Path) -> list[str]:
    """Return the names of the files that make the model; raise ModelError for what cannot be copied as one."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        name = str(inside)
        if inside.parts[0] in _LEFT_OUT:
            continue
        if path.is_symlink() and not path.is_file():
            raise ModelError(f"{path}: is a link to a directory or to nothing: put the files themselves there")
        if "\n" in name or "\\" in name:
            raise ModelError(f"{folder}: holds {name!r}: {SUMS} cannot name it: rename it")
        if path.is_file():
            found.append(name)
    return found


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _make_directory(path: pathlib.Path) -> None:
    """Make the directory and those above it that are missing, open to readers whatever the umask."""
    if not path.is_dir():
        _make_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(0o755)


def _check_space(request: Request, needed: int) -> None:
    place = pathlib.Path(request.root)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + request.min_free_bytes:
        raise ModelError(
            f"{request.root}: {free / 1e9:.1f} GB free, and {request.name} {request.revision} needs {needed / 1e9:.1f} "
            f"GB plus {request.min_free_bytes / 1e9:.1f} GB to spare (min_free_bytes): free it, or set llm_model_root"
        )


def _user_exists(name: str | None) -> bool:
    with contextlib.suppress(KeyError):
        return bool(name and pwd.getpwnam(name))
    return False


def _check_reader_exists(request: Request) -> None:
    """Raise ModelError before hours of copying, not after."""
    if request.reader and not _user_exists(request.reader):
        raise ModelError(
            f"reader is {request.reader!r}, and this host has no such user: create it, or set llm_model_reader"
        )


def _check_reader(request: Request, folder: pathlib.Path) -> None:
    """Raise ModelError when the service user cannot read the files: vLLM would say that they are not there."""
    if not request.reader or os.geteuid() != 0:
        return
    unreadable = ["find", str(folder), "-type", "f", "!", "-readable", "-print", "-quit"]
    closed = ["find", str(request.path.parent), "-maxdepth", "0", "!", "-executable", "-print"]
    for command in [unreadable] if folder == request.path else [unreadable, closed]:
        done = subprocess.run(
            ["runuser", "-u", request.reader, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        told = done.stdout.decode(errors="replace").strip()
        if done.returncode != 0 or told:
            raise ModelError(
                f"{folder}: the user {request.reader!r} cannot read it ({told}): open the directories above it"
            )


def read_sums(path: pathlib.Path) -> dict[str, str] | None:
    """Return file name -> SHA-256 of a ``SHA256SUMS`` file, or None when there is none."""
    if not path.is_file():
        return None
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = _SUM_LINE.fullmatch(line)
        if line.strip() and not parts:
            raise ModelError(f"{path}: the line {line[:80]!r} is none of sha256sum: write the file again with it")
        if parts:
            found[os.path.normpath(parts[2])] = parts[1].lower()
    return found


def sha256(path: pathlib.Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    return _hash(path, hashlib.sha256())


def _hash(path: pathlib.Path, digest: Any) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    found: str = digest.hexdigest()
    return found


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def difference(request: Request, before: bool, after: bool) -> dict[str, str]:
    """Return the diff of a run as ansible prints it: the revision is there, or it is not."""
    line = f"{request.path}\n"
    return {"before": line if before else "", "after": line if after else ""}
