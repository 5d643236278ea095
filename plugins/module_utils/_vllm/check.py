# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the check of vLLM settings in a vLLM environment, as the service user, and remembers what was good."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import probe
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.flag_history import REMOVED, SINCE

MARKER = ".llmops-complete"
LOG_TAIL = 1200


class CheckError(LlmopsError):
    """The check could not be made, or found something wrong."""


@dataclass(frozen=True)
class Config:
    """One set of settings to judge."""

    name: str
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model directory or id that the settings name."""
        return str(self.settings.get("model") or "")

    @property
    def weights(self) -> list[str]:
        """Directories, or ids, of the model and of the adapters."""
        return [self.model, *(path for _name, path in probe.adapters_of(self.settings))]


def from_args(entry: Mapping[str, Any]) -> Config:
    """A configuration as the module's parameter holds it; environment values become text."""
    environment = {str(name): str(value) for name, value in (entry.get("environment") or {}).items()}
    return Config(str(entry["name"]), dict(entry.get("settings") or {}), environment)


def blank(config: Config, **values: Any) -> dict[str, Any]:
    """The shape of one result."""
    return {
        "name": config.name,
        "ok": False,
        "checked": True,
        "errors": [],
        "effective": {},
        "cached": False,
        **values,
    }


def interpreter(env: str) -> Path:
    """The environment's own Python."""
    return Path(env) / "bin" / "python"


def probe_source() -> str:
    """The text of the probe; works from a file and from inside the module's zip."""
    get_source = getattr(probe.__loader__, "get_source", None)
    source: str | bytes | None = get_source(probe.__name__) if get_source is not None else None
    if source is None:
        raise CheckError(
            "the text of the probe _vllm/probe.py cannot be read: the collection is installed incompletely"
        )
    return source.decode() if isinstance(source, bytes) else source  # Ansible's own loader gives bytes


# --- what is remembered ------------------------------------------------------------------------------------------


def environment_identity(env: str) -> str:
    """What makes an environment this one: its marker, else what is installed in it."""
    marker = Path(env) / MARKER
    with contextlib.suppress(OSError):
        return f"{env}:{marker.read_text(encoding='utf-8').strip()}"
    seen = [str(interpreter(env).resolve())]
    for info in sorted(Path(env).glob("lib/python3*/site-packages/vllm*.dist-info")):
        seen.append(f"{info.name}:{info.stat().st_mtime_ns}")
    return f"{env}:" + ",".join(seen)


def weights_identity(model: str) -> list[Any]:
    """Name, size and time of the small files that the engine configuration reads."""
    if not model.startswith("/"):
        return [model]
    seen: list[Any] = [os.path.realpath(model)]
    for file in sorted(Path(model).glob("*.json")):
        status = file.stat()
        seen.append([file.name, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid])
    return seen


def digest(config: Config, *, env: str, user: str, gpu_type: str, driver: str) -> str:
    """The key under which a good result is remembered: everything that could change the verdict."""
    settings = {probe.flag_name(key): value for key, value in config.settings.items()}
    identity = {
        "probe": hashlib.sha256(probe_source().encode()).hexdigest(),
        "environment": environment_identity(env),
        "spellings": sorted(config.settings),
        "settings": settings,
        "variables": dict(config.environment),
        "weights": [weights_identity(path) for path in config.weights],
        "user": user,
        "gpu_type": gpu_type,
        "driver": driver,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def remembered(cache_dir: str, key: str) -> dict[str, Any] | None:
    """The effective values of a configuration known good; None when it is not known."""
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((Path(cache_dir) / f"{key}.json").read_text(encoding="utf-8"))
        effective = document.get("effective") if isinstance(document, dict) else None
        if isinstance(effective, dict):
            return effective
    return None


def remember(cache_dir: str, key: str, name: str, values: Mapping[str, Any]) -> None:
    """Writes a good result; a reader sees the whole file or none."""
    directory = Path(cache_dir)
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=directory, prefix=".tmp-", encoding="utf-8", delete=False) as file:
        json.dump({"name": name, "effective": dict(values)}, file, sort_keys=True)
    Path(file.name).replace(directory / f"{key}.json")


# --- the check itself --------------------------------------------------------------------------------------------


def check_environment(home: Path) -> dict[str, str]:
    """Variables of the probe: offline, and every cache inside its own home."""
    return {
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "HF_HOME": str(home / "hf"),
        "VLLM_CACHE_ROOT": str(home / "vllm"),
        "VLLM_CONFIG_ROOT": str(home / "vllm-config"),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def account(user: str) -> pwd.struct_passwd | None:
    """The account to become, or None when this process is already who it may be."""
    if os.geteuid() != 0 or not user or user == "root":
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise CheckError(f"user {user} does not exist: create it before the check, or set user") from None


def run_probe(env: str, user: str, configs: Sequence[Config], timeout: float) -> dict[str, dict[str, Any]]:
    """Judges the configurations in one process of the environment; returns results by name."""
    python = interpreter(env)
    who = account(user)
    home = Path(tempfile.mkdtemp(prefix="llmops-check-"))
    try:
        if who:
            os.chown(home, who.pw_uid, who.pw_gid)
        variables = check_environment(home)
        request = {
            "user": user or pwd.getpwuid(os.geteuid()).pw_name,
            "environment": variables,
            "history": {"removed": REMOVED, "since": SINCE},
            "configs": [
                {"name": c.name, "settings": dict(c.settings), "environment": dict(c.environment)} for c in configs
            ],
        }
        script = f"{probe_source()}\nraise SystemExit(main({json.dumps(request)!r}))\n"
        process_environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **variables}
        output, log, code, late = _execute(python, script, process_environment, home, who, timeout)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return _results(configs, output, log, code, late=late, timeout=timeout, env=env)


def _execute(
    python: Path,
    script: str,
    environment: Mapping[str, str],
    home: Path,
    who: pwd.struct_passwd | None,
    timeout: float,
) -> tuple[str, str, int, bool]:
    identity: dict[str, Any] = {}
    if who:
        identity = {
            "user": who.pw_uid,
            "group": who.pw_gid,
            "extra_groups": os.getgrouplist(who.pw_name, who.pw_gid),
        }
    command = [str(python), "-"]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=dict(environment),
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            umask=0o077,
            **identity,
        )
    except OSError as problem:
        raise CheckError(
            f"{python} cannot be run{_as(who)}: {problem.strerror}: install the environment again"
        ) from None
    late = False
    try:
        output, log = process.communicate(script, timeout=timeout)
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(process.pid, signal.SIGKILL)
        output, log = process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # vLLM may have started helpers
    return output, log, process.returncode, late


def _as(who: pwd.struct_passwd | None) -> str:
    return f" as user {who.pw_name}" if who else ""


def _results(
    configs: Sequence[Config],
    output: str,
    log: str,
    code: int,
    *,
    late: bool,
    timeout: float,
    env: str,
) -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    stage = "start"
    broken = ""
    for line in output.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        stage = str(answer.get("stage", stage))
        broken = str(answer.get("broken", broken))
        if "name" in answer:
            answers[answer["name"]] = answer
    results = {}
    for config in configs:
        answer = answers.get(config.name)
        if answer is None:
            where = {"start": "while Python started", "import": "while vLLM was imported"}.get(
                stage, f"at the configuration {stage}"
            )
            if late:
                message = f"the check did not end within {timeout:g} s; it stood {where}"
                mend = "raise timeout, or look why this host is so slow"
            elif broken:
                message, mend = f"vLLM of {env} cannot be imported: {broken}", "install the environment again"
            else:
                message = f"the check of {env} ended with code {code} {where}: {_tail(log)}"
                mend = "install the environment again"
            results[config.name] = blank(config, errors=[probe.error("", None, message, mend)])
            continue
        errors = answer.get("errors", [])
        results[config.name] = blank(config, ok=not errors, errors=errors, effective=answer.get("effective", {}))
    return results


def _tail(log: str) -> str:
    lines = [line.strip() for line in log.strip().splitlines() if line.strip()]
    return " | ".join(lines[-4:])[-LOG_TAIL:] or "it said nothing"


def sentence(result: Mapping[str, Any]) -> list[str]:
    """The findings of one configuration, each in one line for a person."""
    lines = []
    for found in result["errors"]:
        place = f"{result['name']}: "
        if found["flag"]:
            place += f"{found['flag']}={json.dumps(found['value'])}: "
        lines.append(f"{place}{found['message']}: {found['mend']}")
    return lines


@dataclass
class Outcome:
    """What the module returns."""

    results: list[dict[str, Any]]
    message: str

    @property
    def checked(self) -> bool:
        """Whether every configuration was really judged."""
        return all(result["checked"] for result in self.results)

    @property
    def ok(self) -> bool:
        """Whether every configuration was judged and is good."""
        return all(result["ok"] for result in self.results)

    @property
    def refused(self) -> bool:
        """Whether a configuration was judged and found wrong."""
        return any(result["checked"] and not result["ok"] for result in self.results)


def check(
    env: str,
    user: str,
    entries: Sequence[Mapping[str, Any]],
    *,
    timeout: float,
    cache_dir: str | None,
    gpu_type: str,
    driver: str,
    check_mode: bool,
) -> Outcome:
    """Judges all configurations; what is known good costs nothing."""
    configs = [from_args(entry) for entry in entries]
    names = [config.name for config in configs]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise CheckError(f"configs names {', '.join(double)} more than once: give every configuration its own name")
    if not os.access(interpreter(env), os.X_OK):
        if not check_mode:
            raise CheckError(f"{interpreter(env)} does not exist: install the environment {env} before the check")
        reason = f"not checked: the environment {env} does not exist yet"
        return Outcome([blank(config, checked=False) for config in configs], reason)
    results: dict[str, dict[str, Any]] = {}
    keys: dict[str, str] = {}
    waiting = []
    for config in configs:
        if check_mode and any(path.startswith("/") and not Path(path).exists() for path in config.weights):
            results[config.name] = blank(config, checked=False)
            continue
        keys[config.name] = digest(config, env=env, user=user, gpu_type=gpu_type, driver=driver)
        known = remembered(cache_dir, keys[config.name]) if cache_dir else None
        if known is None:
            waiting.append(config)
        else:
            results[config.name] = blank(config, ok=True, effective=known, cached=True)
    if waiting:
        results.update(run_probe(env, user, waiting, timeout))
    if cache_dir and not check_mode:
        for config in waiting:
            if results[config.name]["ok"]:
                remember(cache_dir, keys[config.name], config.name, results[config.name]["effective"])
    outcome = Outcome([results[name] for name in names], "")
    outcome.message = _message(outcome)
    return outcome


def _message(outcome: Outcome) -> str:
    lines = [line for result in outcome.results if result["checked"] for line in sentence(result)]
    missing = [result["name"] for result in outcome.results if not result["checked"]]
    if missing:
        lines.append(f"not checked: not all weights of {', '.join(missing)} are on this host yet")
    return "\n".join(lines) if lines else f"{len(outcome.results)} configurations are good"
