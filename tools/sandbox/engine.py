"""The machine's own part: system packages and a running container engine. Remembers what it added."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

from .layout import STATE
from .steps import SandboxError, run, succeeds, warn

PACKAGES = {"docker.io": "dockerd", "mmdebstrap": "mmdebstrap", "openssl": "openssl"}
_RECORD = STATE / "machine.json"
_BOOTSTRAP = STATE / "bootstrap-packages"
_START_SECONDS = 60


def _record() -> dict[str, Any]:
    return json.loads(_RECORD.read_text()) if _RECORD.exists() else {"packages": []}


def _save(record: dict[str, Any]) -> None:
    STATE.mkdir(mode=0o755, exist_ok=True)
    aside = _RECORD.with_suffix(".tmp")
    aside.write_text(json.dumps(record, indent=2))
    aside.replace(_RECORD)


def _installed() -> set[str]:
    rows = run(["dpkg-query", "-W", "-f", "${Package} ${Status}\n"]).splitlines()
    return {row.split()[0] for row in rows if row.endswith(" installed")}


def _root(command: list[str]) -> list[str]:
    return command if os.geteuid() == 0 else ["sudo", *command]


def install_packages() -> None:
    """Install what is missing of PACKAGES, and write down every package that came with it, for ``demo-down``."""
    record = _record()
    missing = [name for name, command in PACKAGES.items() if not succeeds(["sh", "-c", f"command -v {command}"])]
    if not missing and "baseline" not in record:
        return
    # The baseline of an install that was interrupted still holds: what it had begun is counted, too.
    record.setdefault("baseline", sorted(_installed()))
    _save(record)
    if missing:
        quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run(_root(["apt-get", "update", "-qq"]))
        run(_root(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]), env=quiet)
    record["packages"] = sorted({*record["packages"], *_installed() - set(record.pop("baseline"))})
    _save(record)


def start_engine() -> None:
    """Start dockerd unless one answers already; a machine without systemd gets one that we stop ourselves."""
    if succeeds(["docker", "info"]):
        return
    if pathlib.Path("/run/systemd/system").exists():
        run(_root(["systemctl", "start", "docker"]))
    else:
        with open(STATE / "dockerd.log", "ab") as log:
            process = subprocess.Popen(
                _root(["dockerd"]), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        record = _record()
        record["dockerd"] = process.pid
        _save(record)
    limit = time.monotonic() + _START_SECONDS
    while not succeeds(["docker", "info"]):
        if time.monotonic() > limit:
            raise SandboxError(
                f"the container engine did not answer within {_START_SECONDS} s: see {STATE / 'dockerd.log'}"
                " or `journalctl -u docker`"
            )
        time.sleep(0.2)


def wake() -> bool:
    """Whether an engine answers that may hold something of ours; one of ours that was killed is started for that."""
    if not succeeds(["docker", "info"]) and "dockerd" in _record():
        start_engine()
    return succeeds(["docker", "info"])


def stop_engine() -> None:
    """Stop the dockerd that we started; one that was there before stays."""
    record = _record()
    pid = record.pop("dockerd", None)
    if pid is None or not _is_dockerd(pid):
        return
    os.kill(pid, signal.SIGTERM)
    limit = time.monotonic() + _START_SECONDS
    while _is_dockerd(pid):
        if time.monotonic() > limit:
            warn(f"dockerd (pid {pid}) is still running {_START_SECONDS} s after SIGTERM: stop it by hand")
            return
        time.sleep(0.2)
    _save(record)


def _is_dockerd(pid: int) -> bool:
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return "(dockerd)" in status and ") Z " not in status


def remove_packages() -> None:
    """Purge exactly the packages that ``tools/bootstrap`` and ``install_packages`` brought, and nothing else."""
    brought = {*_record()["packages"], *(_BOOTSTRAP.read_text().split() if _BOOTSTRAP.exists() else [])}
    packages = sorted(brought & _installed())
    if not packages:
        return
    plan = run(_root(["apt-get", "purge", "-s", "-y", *packages])).splitlines()
    doomed = {line.split()[1] for line in plan if line.startswith(("Purg ", "Remv "))}
    if doomed - brought:
        words = " ".join(packages)
        warn(f"packages kept, because {', '.join(sorted(doomed - brought))} needs them: apt-get purge {words}")
        return
    run(_root(["apt-get", "purge", "-y", "-qq", *packages]), env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
