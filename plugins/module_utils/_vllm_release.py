# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of a replica: immutable directories, and the links that say which one is current, previous and staged."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import hmac
import json
import math
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _systemd
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

HIDDEN = _systemd.HIDDEN
RELEASE_VARIABLE = "LLMOPS_RELEASE"
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
SECRET_FLAGS = ("api-key", "hf-token", "ssl-keyfile-password")
SECRET_VARIABLES = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
POINTERS = ("current", "previous", "staged")
VERIFIED = "verified"  # a link, too: to the release that has answered completions


class ReleaseError(LlmopsError):
    """A release that cannot be made or activated."""


# --- what a release means ----------------------------------------------------------------------------------------


def flag_name(key: str) -> str:
    """``max_num_seqs`` -> ``max-num-seqs``: vLLM drops ``enable_x: false`` silently, ``enable-x: false`` it heeds."""
    base, dot, rest = str(key).partition(".")
    return base.replace("_", "-") + dot + rest


def parsed_settings(settings: Mapping[str, Any], where: str = "settings") -> dict[str, Any]:
    """Settings under their long names with dashes, in order; refuses what vLLM would misread."""
    parsed: dict[str, Any] = {}
    for key, value in settings.items():
        name = flag_name(key)
        if name in parsed:
            raise ReleaseError(f"{where} has {name} twice, once with '-' and once with '_': give it once")
        if value is None:
            raise ReleaseError(f"{where}.{key} is null, which vLLM reads as the text 'None': leave {name} out")
        if name in SECRET_FLAGS:
            raise ReleaseError(f"{where} holds {name}: give it in secrets, so that no diff and no log shows it")
        parsed[name] = value
    return dict(sorted(parsed.items()))


def parsed_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables as text; true is 1 and false is 0."""
    parsed: dict[str, str] = {}
    for name, value in environment.items():
        if not VARIABLE.match(str(name)):
            raise ReleaseError(f"environment has the name {name!r}: use letters, digits and _")
        if name in SECRET_VARIABLES:
            raise ReleaseError(
                f"environment holds {name}, which a diff would show: give api-key or hf-token in secrets"
            )
        if value is None or isinstance(value, (dict, list)):
            raise ReleaseError(f"environment.{name} is {json.dumps(value)}: give a text or a number")
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if any(ord(character) < 32 and character != "\t" for character in text):
            raise ReleaseError(f"environment.{name} holds a line break or another control character: remove it")
        parsed[str(name)] = text
    return dict(sorted(parsed.items()))


def _meaning(value: Any) -> Any:
    """Numbers and their text are the same on a command line."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return str(value)


def _unit_meaning(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and line[0] not in "#;"]


def secret_values(secrets: Mapping[str, Any]) -> dict[str, list[str]]:
    """Secrets as lists of text, under the long flag names."""
    parsed = {}
    for key, value in sorted(secrets.items()):
        values = [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]
        if any(not item for item in values):
            raise ReleaseError(f"secrets.{key} holds an empty text: give a secret or leave it out")
        if values:
            parsed[flag_name(key)] = values
    return parsed


def fingerprint(secrets: Mapping[str, list[str]]) -> str:
    """Tells whether secrets changed, and nothing else about them."""
    if not secrets:
        return ""
    key = next(iter(secrets.values()))[0].encode()
    return hmac.new(key, json.dumps(secrets, sort_keys=True).encode(), hashlib.sha256).hexdigest()[:8]


@dataclass(frozen=True)
class Release:
    """Everything that decides how a replica runs."""

    env: str
    model: str
    model_name: str
    model_revision: str
    version: str
    settings: dict[str, Any]
    environment: dict[str, str]
    unit: str
    secrets: dict[str, list[str]] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        """A digest of the meaning: order and spelling of names, comments and blank lines do not count."""
        meaning = {
            "version": self.version,
            "env": os.path.basename(self.env.rstrip("/")),  # noqa: PTH119
            "model_name": self.model_name,
            "model_revision": self.model_revision,
            "model": self.model,
            "settings": {name: _meaning(value) for name, value in self.settings.items()},
            "environment": self.environment,
            "unit": _unit_meaning(self.unit),
            "secrets": fingerprint(self.secrets),
        }
        text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def files(self) -> dict[str, str]:
        """Name and text of every file of the release directory."""
        document = {
            "id": self.id,
            "version": self.version,
            "env": self.env,
            "model": self.model,
            "model_name": self.model_name,
            "model_revision": self.model_revision,
            "settings": self.settings,
            "environment": self.environment,
            "secrets": {name: len(values) for name, values in self.secrets.items()},
            "fingerprint": fingerprint(self.secrets),
        }
        variables = {**self.environment, RELEASE_VARIABLE: self.id}
        return {
            "config.yaml": config_text({**self.settings, **self.secrets}),
            "environment": "".join(f"{name}={systemd_quote(value)}\n" for name, value in sorted(variables.items())),
            "unit.conf": self.unit if self.unit.endswith("\n") or not self.unit else self.unit + "\n",
            "release.json": json.dumps(document, indent=2, sort_keys=True) + "\n",
        }

    def view(self) -> dict[str, str]:
        """The release for a diff: secrets only as a count and a fingerprint."""
        return view_of(json.loads(self.files()["release.json"]), self.files()["unit.conf"])


def release_from(params: Mapping[str, Any]) -> Release:
    """The release that the module's parameters describe."""
    for name in ("env", "model"):
        if not str(params[name] or "").startswith("/"):
            raise ReleaseError(f"{name} is {params[name]!r}: give the absolute path of a directory")
    settings = parsed_settings(params["settings"])
    secrets = secret_values(params["secrets"] or {})
    both = sorted(settings.keys() & secrets.keys())
    if both:
        raise ReleaseError(f"{', '.join(both)} stands in settings and in secrets: give it in secrets alone")
    return Release(
        env=params["env"].rstrip("/"),
        model=params["model"].rstrip("/"),
        model_name=params["model_name"] or "",
        model_revision=params["model_revision"] or "",
        version=params["version"] or "",
        settings=settings,
        environment=parsed_environment(params["environment"] or {}),
        unit=params["unit"] or "",
        secrets=secrets,
    )


# --- texts -------------------------------------------------------------------------------------------------------


def yaml_value(value: Any) -> str:
    """A value as one line of YAML: JSON with the differences that matter to YAML 1.1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ReleaseError(f"settings hold the number {value}: give a finite one")
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_quote(str(name))}: {yaml_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    return "null" if value is None else yaml_quote(str(value))


def yaml_quote(text: str) -> str:
    """A double-quoted YAML text."""
    parts = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            parts.append("\\" + character)
        elif 32 <= code < 127 or (code > 160 and character.isprintable() and code not in (0xFEFF, 0x2028, 0x2029)):
            parts.append(character)
        else:
            parts.append(f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}")
    return '"' + "".join(parts) + '"'


def config_text(settings: Mapping[str, Any]) -> str:
    """``config.yaml``: one flag a line, texts always quoted."""
    lines = [f"{name}: {yaml_value(value)}" for name, value in sorted(settings.items())]
    return "# Made by llmops.vllm.vllm_release: do not edit, change the inventory.\n" + "\n".join(lines) + "\n"


def systemd_quote(value: str) -> str:
    """A value for systemd's EnvironmentFile."""
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def view_of(document: Mapping[str, Any], unit: str) -> dict[str, str]:
    """Texts for a diff, without secrets."""
    settings = dict(document.get("settings") or {})
    for name, count in (document.get("secrets") or {}).items():
        settings[name] = [HIDDEN] * count
    identity = {name: document.get(name, "") for name in ("version", "env", "model", "model_name", "model_revision")}
    identity["secrets-fingerprint"] = document.get("fingerprint", "")
    environment = document.get("environment") or {}
    return {
        "release": "".join(f"{name}: {value}\n" for name, value in identity.items()),
        "config.yaml": "".join(f"{name}: {yaml_value(value)}\n" for name, value in sorted(settings.items())),
        "environment": "".join(f"{name}={systemd_quote(value)}\n" for name, value in sorted(environment.items())),
        "unit.conf": unit,
    }


def diff_of(
    before: Mapping[str, str], after: Mapping[str, str], replica: str, ids: tuple[str, str]
) -> list[dict[str, str]]:
    """Ansible's diff of two views; only the parts that differ."""
    return [
        {
            "before_header": f"{replica} {name} ({ids[0] or 'none'})",
            "after_header": f"{replica} {name} ({ids[1] or 'none'})",
            "before": before.get(name, ""),
            "after": after.get(name, ""),
        }
        for name in ("release", "config.yaml", "environment", "unit.conf")
        if before.get(name, "") != after.get(name, "")
    ]


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str]]:
    """What a new release changes, value by value."""
    found = []
    for part, separator in (("release", ": "), ("config.yaml", ": "), ("environment", "=")):
        old, new = (
            dict(line.split(separator, 1) for line in view.get(part, "").splitlines()) for view in (before, after)
        )
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                found.append({"name": name, "before": old.get(name, ""), "after": new.get(name, "")})
    if before.get("unit.conf", "") != after.get("unit.conf", ""):
        found.append({"name": "unit.conf", "before": "", "after": "changed"})
    return found


# --- the directory of a replica ----------------------------------------------------------------------------------


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

    def drift(self, release: Release) -> list[str]:
        """Files of a release on the disk that are not what they should be; all of them when it is not there."""
        directory = self.releases / release.id
        wrong = []
        for name, text in release.files().items():
            file = directory / name
            try:
                status = file.lstat()
                content = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                wrong.append(name)
                continue
            if name == "release.json":
                # marks such as "bad" are added later and stay
                content = json.dumps(self._unmarked(content), sort_keys=True)
                text = json.dumps(json.loads(text), sort_keys=True)
            if content != text or status.st_mode & 0o7777 != FILE_MODE or not self._owned(status):
                wrong.append(name)
        for name, target in (("env", release.env), ("model", release.model)):
            try:
                if str((directory / name).readlink()) != target:
                    wrong.append(name)
            except OSError:
                wrong.append(name)
        return wrong

    @staticmethod
    def _unmarked(text: str) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict):
                return {name: value for name, value in found.items() if name not in ("bad", "held")}
        return {}

    def _owned(self, status: os.stat_result) -> bool:
        try:
            return (status.st_uid, status.st_gid) == self.owner.ids()
        except ReleaseError:
            return False

    # writing

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time; survives that another run removes the whole directory meanwhile."""
        while True:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self._directory(self.root, repair=False)
            self._directory(self.path)
            try:
                handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not self._is_lock(handle):
                    continue
                self._directory(self.releases)
                self._sweep()
                yield
                return
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
        for left in [*self.releases.glob(".tmp-*"), *self.path.glob(".link-*")]:
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
        for name, text in release.files().items():
            _write(made / name, text, uid, gid)
        (made / "env").symlink_to(release.env)
        (made / "model").symlink_to(release.model)
        _own(made, uid, gid, DIRECTORY_MODE)
        _sync(made)
        if target.exists():  # without a readable release.json: not a release
            target.rename(self.releases / f".tmp-broken-{release.id}")
        made.rename(target)
        _sync(self.releases)
        _remove(self.releases / f".tmp-broken-{release.id}")

    def _repair(self, release: Release, target: Path) -> None:
        uid, gid = self.owner.ids()
        marks = {name: value for name, value in self.document(release.id).items() if name in ("bad", "held")}
        files = release.files()
        for name in self.drift(release):
            aside = target / f".tmp-{name}"
            _remove(aside)
            if name in files:
                text = files[name]
                if name == "release.json" and marks:
                    text = json.dumps({**json.loads(text), **marks}, indent=2, sort_keys=True) + "\n"
                _write(aside, text, uid, gid)
            else:
                aside.symlink_to(release.env if name == "env" else release.model)
            aside.rename(target / name)
        _own(target, uid, gid, DIRECTORY_MODE)
        _sync(target)

    def point(self, name: str, release: str) -> None:
        """Sets a link in one step, or removes it when ``release`` is empty."""
        link = self.path / name
        if self.pointer(name) == release:
            return
        if release:
            aside = self.path / f".link-{name}"
            _remove(aside)
            aside.symlink_to(f"releases/{release}")
            aside.rename(link)
        else:
            link.unlink()
        _sync(self.path)

    def prunable(self, keep: int, protected: set[str]) -> list[str]:
        """Releases that nobody needs: not pointed at, not running, not marked bad, older than the ``keep`` newest."""
        spare = []
        with contextlib.suppress(FileNotFoundError):
            for directory in self.releases.iterdir():
                release = directory.name
                if not release.startswith(".") and release not in protected and not self.document(release).get("bad"):
                    spare.append((directory.stat().st_mtime_ns, release))
        return [release for _unused, release in sorted(spare, reverse=True)[keep:]]

    def prune(self, releases: list[str]) -> None:
        """Removes releases; one that is half removed is never seen under its name."""
        for release in releases:
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


def running_release(unit: str) -> str:
    """The release that the unit's process was started with; empty when none runs or nobody can tell."""
    try:
        pid = _systemd.show(unit).main_pid
        if not pid:
            return ""
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _sep, value = entry.partition(b"=")
            if name.decode("utf-8", "replace") == RELEASE_VARIABLE:
                return value.decode("utf-8", "replace")
    except (LlmopsError, OSError):
        pass
    return ""


def releases_of(root: str, replica: str) -> dict[str, Any]:
    """What the host says about a replica's releases: ids, each empty when there is none.

    ``release`` is in force, ``pending`` is staged and waits for a rollout, ``running`` is what the process was started
    with: it differs from ``release`` between a switch and the restart.
    """
    home = Home(root, replica, Owner("root", "root"))
    current, staged = home.pointer("current"), home.pointer("staged")
    return {
        "release": current,
        "previous": home.pointer("previous"),
        "pending": staged if staged != current else "",
        "running_release": running_release(f"vllm@{replica}.service"),
    }


# --- the states --------------------------------------------------------------------------------------------------


@dataclass
class Change:
    """What was done, or would be done in check mode."""

    changed: bool = False
    release: str = ""
    current: str = ""
    previous: str = ""
    staged: str = ""
    running: str = ""
    restart_needed: bool = False
    verified: bool = False
    bad: str = ""
    pruned: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {**vars(self), "pending": bool(self.staged and self.staged != self.current)}


@dataclass(frozen=True)
class Plan:
    """Where the links should stand, and what must be written for it."""

    release: str
    current: str
    previous: str
    staged: str
    build: list[str]  # files that are missing or wrong


def plan_staged(home: Home, release: Release) -> Plan:
    """Candidate built and staged; nothing staged when it is what is current anyway."""
    current = home.pointer("current")
    return Plan(
        release=release.id,
        current=current,
        previous=home.pointer("previous"),
        staged="" if release.id == current else release.id,
        build=home.drift(release),
    )


def plan_active(home: Home, release: Release | None, wanted: str, *, check: bool) -> Plan:
    """Links after the switch; refuses a release that is bad or whose parts are gone."""
    current = home.pointer("current")
    target = wanted or (release.id if release else "") or home.pointer("staged") or current
    if not target:
        raise ReleaseError(f"nothing is staged for replica {home.replica}: stage a release first, or give its settings")
    builds = release is not None and release.id == target
    document = home.document(target)
    if not document and not builds:
        raise ReleaseError(f"replica {home.replica} has no release {target} in {home.releases}: stage it first")
    if document.get("bad") and target != current:
        raise ReleaseError(
            f"release {target} of replica {home.replica} is marked bad: {document['bad']}: stage a different release"
        )
    if not check and target != current:
        for name in ("env", "model"):
            path = getattr(release, name) if builds else str(document.get(name, ""))
            if not Path(path).is_dir():
                raise ReleaseError(f"release {target} of replica {home.replica} needs {name} {path}, which is gone")
    switched = target != current
    staged = home.pointer("staged")
    return Plan(
        release=target,
        current=target,
        previous=current if switched else home.pointer("previous"),
        staged="" if staged == target or not wanted else staged,
        build=home.drift(release) if builds and release else [],
    )


def apply(
    home: Home,
    state: str,
    release: Release | None,
    *,
    wanted: str = "",
    keep: int = 1,
    unit: str = "",
    check: bool = False,
) -> Change:
    """Brings a replica's releases into a state; with ``check`` only says what would be."""
    if state == "absent":
        return _absent(home, check=check)
    if state == VERIFIED:
        return _verified(home, check=check)
    if check:
        return _settle(home, state, release, wanted=wanted, keep=keep, unit=unit, check=True)
    with home.locked():
        return _settle(home, state, release, wanted=wanted, keep=keep, unit=unit, check=False)


def _settle(
    home: Home, state: str, release: Release | None, *, wanted: str, keep: int, unit: str, check: bool
) -> Change:
    before = {name: home.pointer(name) for name in POINTERS}
    if state == "staged":
        if release is None:
            raise ReleaseError("state=staged needs settings, environment, unit, env and model of the release")
        plan = plan_staged(home, release)
    else:
        plan = plan_active(home, release, wanted, check=check)
    after = {name: getattr(plan, name) for name in POINTERS}
    old_view = home.view(before["current"])
    new_view = release.view() if release and release.id == plan.release else home.view(plan.release)
    running = running_release(unit) if unit else ""
    repaired = bool(plan.build) and plan.release == before["current"]
    change = Change(
        changed=bool(plan.build) or after != before,
        release=plan.release,
        running=running,
        repaired=plan.build if home.document(plan.release) else [],
        verified=after["current"] != "" and home.pointer(VERIFIED) == after["current"],
        bad=str(home.document(plan.release).get("bad", "")),
        # what was repaired in the current release is compared with itself: the means differ, not the meaning
        differences=differences(old_view, new_view) if plan.release != before["current"] else [],
        **after,
    )
    switched = before["current"] != "" and after["current"] != before["current"]
    outdated = running != "" and running != after["current"]
    change.restart_needed = switched or repaired or outdated
    if change.changed:
        change.diff = diff_of(old_view, new_view, home.replica, (before["current"], plan.release))
    protected = {*after.values(), plan.release, running} - {""}
    change.pruned = home.prunable(keep, protected)
    change.changed = change.changed or bool(change.pruned)
    if check:
        return change
    if plan.build and release:
        home.build(release)
    if after["current"] != before["current"]:
        home.point("previous", after["previous"])
        home.point("current", after["current"])
    home.point("staged", after["staged"])
    home.prune(change.pruned)
    return change


def _verified(home: Home, *, check: bool) -> Change:
    """Marks the release in force as one that has answered; the mark ends with the next switch."""
    pointers = {name: home.pointer(name) for name in POINTERS}
    current = pointers["current"]
    if not current:
        raise ReleaseError(f"replica {home.replica} has no release in force: activate one first")
    change = Change(changed=home.pointer(VERIFIED) != current, release=current, verified=True)
    change.current, change.previous, change.staged = (pointers[name] for name in POINTERS)
    if change.changed and not check:
        with home.locked():
            home.point(VERIFIED, current)
    return change


def _absent(home: Home, *, check: bool) -> Change:
    if not home.path.exists():
        return Change()
    current = home.pointer("current")
    change = Change(changed=True)
    change.diff = diff_of(home.view(current), {}, home.replica, (current, ""))
    if not check:
        with home.locked():
            home.remove()
    return change
