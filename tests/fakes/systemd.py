"""A FAKE systemd: ``systemctl`` and ``journalctl`` for services whose processes are real.

``lay_out(DIRECTORY)`` writes both commands into ``DIRECTORY/bin``; the first in ``PATH`` is asked. A unit is the file
``DIRECTORY/<unit>.json`` with ``command``, ``environment``, ``stop_seconds``, ``restart_seconds`` (none: it is not
restarted), ``kill_rest``, whether the process group is killed once the main process has ended, as ``KillMode=mixed``
does, and ``assert_path``, without which it does not start. Process groups stand in for control groups.
``DIRECTORY/calls`` tells what systemctl was asked for, apart from ``show``.

It uses the standard library only and needs no other file: integration targets start it on any host.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

POLL_SECONDS = 0.02
START_SECONDS = 30


def lay_out(base: pathlib.Path, python: str = sys.executable) -> pathlib.Path:
    """Write both commands; return their directory."""
    commands = base / "bin"
    commands.mkdir(exist_ok=True)
    for name in ("systemctl", "journalctl"):
        path = commands / name
        path.write_text(f'#!/bin/sh\nexec {python} {pathlib.Path(__file__).resolve()} {base} {name} "$@"\n')
        path.chmod(0o755)
    return commands


class Unit:
    """One unit: what it is, how it stands, and what is wanted of it, in files beside each other."""

    def __init__(self, base: pathlib.Path, name: str) -> None:
        self.base, self.name = base, name
        self.spec_file, self.state_file = base / f"{name}.json", base / f"{name}.state"
        self.stop_file, self.log_file = base / f"{name}.stop", base / f"{name}.log"

    @property
    def state(self) -> dict[str, Any]:
        """How it stands, as ``systemctl show`` names it."""
        if not self.spec_file.exists():
            return {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
        try:
            found: dict[str, Any] = json.loads(self.state_file.read_text())
        except FileNotFoundError:
            found = {"ActiveState": "inactive", "SubState": "dead", "ExecMainCode": 0}
        if self.stop_file.exists():
            found["Job"] = 7
        spec = json.loads(self.spec_file.read_text())
        return {"LoadState": "loaded", "TimeoutStopUSec": f"{spec['stop_seconds']}s", **found}

    def note(self, state: str, **more: Any) -> None:
        """Write how it stands now."""
        active, _sep, sub = state.partition("/")
        old = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        beside = self.state_file.with_suffix(".new")
        beside.write_text(json.dumps({**old, "ActiveState": active, "SubState": sub, **more}))
        beside.replace(self.state_file)


def supervise(unit: Unit) -> None:
    """Run the unit until it has ended for good."""
    spec = json.loads(unit.spec_file.read_text())
    (unit.base / f"{unit.name}.pid").write_text(str(os.getpid()))
    restarts = 0
    while True:
        stopped = _run_once(unit, spec, restarts)
        if stopped or "restart_seconds" not in spec or unit.state["ExecMainStatus"] == 2:
            unit.stop_file.unlink(missing_ok=True)
            return
        restarts += 1
        unit.note("activating/auto-restart", NRestarts=restarts)
        end = time.monotonic() + spec["restart_seconds"]
        while time.monotonic() < end:
            if unit.stop_file.exists():
                unit.note("inactive/dead")
                unit.stop_file.unlink()
                return
            time.sleep(POLL_SECONDS)


def _run_once(unit: Unit, spec: dict[str, Any], restarts: int) -> bool:
    """Run the process until it has ended; tell whether it was stopped."""
    with unit.log_file.open("a") as log:
        process = subprocess.Popen(
            spec["command"],
            env={**os.environ, **spec.get("environment", {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (unit.base / f"{unit.name}.main.pid").write_text(str(process.pid))
    unit.note("active/running", MainPID=process.pid, NRestarts=restarts, InactiveExitTimestampMonotonic=_now())
    since, result = 0.0, ""
    while process.poll() is None:
        if unit.stop_file.exists() and not since:
            since = time.monotonic()
            unit.note("deactivating/stop-sigterm", ActiveExitTimestampMonotonic=_now())
            process.terminate()
        if since and not result and time.monotonic() - since > spec["stop_seconds"]:
            result = "timeout"
            _kill_group(process.pid)
        time.sleep(POLL_SECONDS)
    if spec.get("kill_rest", True):
        _kill_group(process.pid)
    code = process.returncode
    result = result or ("success" if code == 0 else "exit-code" if code > 0 else "signal")
    unit.note(
        "inactive/dead" if result == "success" else "failed/failed",
        MainPID=0,
        Result=result,
        ExecMainCode=1 if code >= 0 else 2,
        ExecMainStatus=abs(code),
        InactiveEnterTimestampMonotonic=_now(),
    )
    return bool(since)


def _now() -> int:
    return int(time.monotonic() * 1e6)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def systemctl(base: pathlib.Path, words: list[str]) -> str:
    """Do what systemctl would do; return what it prints."""
    verb, name = words[0], words[-1]
    unit = Unit(base, name)
    if verb == "show":
        asked = [name for name in words[2].split(",") if name in unit.state]
        return "".join(f"{name}={unit.state[name]}\n" for name in asked)
    with (base / "calls").open("a") as calls:
        calls.write(f"{' '.join(words)}\n")
    if verb == "daemon-reload":
        return ""
    down = unit.state["ActiveState"] in ("inactive", "failed")
    if verb == "stop" and not down:
        unit.stop_file.touch()
    if verb == "kill":
        if not unit.state.get("MainPID"):
            sys.exit("Failed to kill unit: No main process to kill")
        _kill_group(unit.state["MainPID"])
    if verb == "reset-failed" and unit.state["ActiveState"] == "failed":
        unit.note("inactive/dead", Result="success")
    if verb == "restart" and not down:
        unit.stop_file.touch()
        _until(lambda: not unit.stop_file.exists())
    spec = json.loads(unit.spec_file.read_text())
    if verb in ("start", "restart") and not pathlib.Path(spec.get("assert_path", "/")).exists():
        unit.log_file.write_text(f"Assertion failed for {name}.\n")
    elif verb == "restart" or (verb == "start" and down):
        unit.state_file.unlink(missing_ok=True)
        command = [sys.executable, __file__, str(base), "supervise", name]
        quiet = subprocess.DEVNULL
        subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        _until(unit.state_file.exists)
    return ""


def _until(condition: Any) -> None:
    end = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {START_SECONDS} s")
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Be the command that the second argument names, with the state in the directory that the first names."""
    base, command, words = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if command == "lay_out":
        lay_out(base)
    elif command == "supervise":
        supervise(Unit(base, words[0]))
    elif command == "systemctl":
        sys.stdout.write(systemctl(base, words))
    else:
        sys.stdout.write(Unit(base, words[1]).log_file.read_text())


if __name__ == "__main__":
    main()
