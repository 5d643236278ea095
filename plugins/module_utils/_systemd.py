# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd knows about a unit, and the end of its journal."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,NRestarts,MainPID,ExecMainStatus,ExecMainCode,Result,InvocationID,Job,Slice,ControlGroup,"
    "TimeoutStopUSec,ActiveExitTimestampMonotonic,InactiveExitTimestampMonotonic,InactiveEnterTimestampMonotonic"
)
HIDDEN = "VALUE_HIDDEN"
_STOP_SECONDS = 90.0  # systemd's own default
_CONTROL_SECONDS = 90.0  # a reload takes systemd as long as the host has units
_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}
_ENDED = {"1": "exited with code", "2": "was killed by signal", "3": "dumped core on signal"}


class SystemdError(LlmopsError):
    """systemd could not be asked."""


@dataclass(frozen=True)
class UnitState:
    """One look at a unit."""

    unit: str
    load: str = ""
    active: str = ""
    sub: str = ""
    restarts: int = 0
    main_pid: int = 0
    exit_code: str = ""  # 1 exited, 2 killed, 3 dumped
    exit_status: int = 0
    result: str = ""
    invocation: str = ""
    job: int = 0  # that systemd has still to finish; 0 is none
    control_group: str = ""  # where its processes are, also those that it left when it stopped
    stop_seconds: float = _STOP_SECONDS  # after which systemd kills what a stop has left
    # seconds of the monotonic clock; 0 is never
    active_until: float = 0.0
    inactive_until: float = 0.0
    inactive_since: float = 0.0

    @property
    def exists(self) -> bool:
        """Whether systemd knows a file for it."""
        return self.load not in ("", "not-found")

    @property
    def down(self) -> bool:
        """Whether no process runs and none is about to be started for the first time."""
        return self.active in ("inactive", "failed") or self.restarting

    @property
    def started(self) -> bool:
        """Whether its process runs or is about to."""
        return not self.down and self.active != "deactivating"

    @property
    def stopped(self) -> bool:
        """Whether nothing runs, and systemd has nothing in mind with it."""
        return self.active in ("inactive", "failed") and not self.job

    @property
    def restarting(self) -> bool:
        """Whether its process ended and systemd waits a while until it starts the next one."""
        return self.sub.startswith("auto-restart")

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended its process, which then finished no request."""
        return (self.exit_code, self.exit_status) == ("2", 9)

    @property
    def state(self) -> str:
        """``active/running``."""
        return f"{self.active}/{self.sub}"

    def words(self) -> str:
        """``vllm@r0.service is failed/failed (exit-code), its process exited with code 1``."""
        text = f"{self.unit} is {self.state}"
        if self.result not in ("", "success"):
            text += f" ({self.result})"
        if self.exit_code in _ENDED:
            text += f", its process {_ENDED[self.exit_code]} {self.exit_status}"
        if self.restarts:
            text += f", {self.restarts} restarts"
        return text


def _run(command: Sequence[str], timeout: float = 20.0) -> str:
    program = shutil.which(command[0])
    if program is None:
        raise SystemdError(f"{command[0]} is not on this host: a unit can be watched only where systemd runs")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SystemdError(f"{' '.join(command)}: no answer within {timeout:g} s") from None
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip()
        raise SystemdError(f"{' '.join(command)}: ended with code {done.returncode}: {words}")
    return done.stdout


def parse_show(unit: str, text: str) -> UnitState:
    """The state that the output of ``systemctl show`` tells."""
    values = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)

    def number(name: str) -> int:
        value = values.get(name, "")
        return int(value) if value.isdigit() else 0

    return UnitState(
        unit=unit,
        load=values.get("LoadState", ""),
        active=values.get("ActiveState", ""),
        sub=values.get("SubState", ""),
        restarts=number("NRestarts"),
        main_pid=number("MainPID"),
        exit_code=values.get("ExecMainCode", ""),
        exit_status=number("ExecMainStatus"),
        result=values.get("Result", ""),
        invocation=values.get("InvocationID", ""),
        job=number("Job"),
        # systemd lets go of the group of a stopped unit even if a process is left there
        control_group=values.get("ControlGroup") or _group(values.get("Slice", ""), values.get("Id", unit)),
        stop_seconds=span(values.get("TimeoutStopUSec", "")),
        active_until=number("ActiveExitTimestampMonotonic") / 1e6,
        inactive_until=number("InactiveExitTimestampMonotonic") / 1e6,
        inactive_since=number("InactiveEnterTimestampMonotonic") / 1e6,
    )


def _group(name: str, unit: str) -> str:
    """``system-vllm.slice`` -> ``/system.slice/system-vllm.slice/<unit>``."""
    parts = name[: -len(".slice")].split("-") if name.endswith(".slice") else []
    return "".join(f"/{'-'.join(parts[: at + 1])}.slice" for at in range(len(parts))) + f"/{unit}" if parts else ""


def span(text: str) -> float:
    """The seconds of a span as systemd prints it, ``1min 30s``; its default for what is none."""
    if text == "infinity":
        return math.inf
    parts = re.findall(r"([\d.]+)([a-z]+)", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else _STOP_SECONDS


def show(unit: str) -> UnitState:
    """Asks systemd about a unit."""
    return parse_show(unit, _run(["systemctl", "show", "-p", PROPERTIES, "--", unit]))


def control(*words: str) -> None:
    """Runs systemctl with these words; SystemdError when it refuses."""
    _run(["systemctl", *words], _CONTROL_SECONDS)


def journal_tail(unit: str, lines: int = 30, secrets: Iterable[str] = ()) -> str:
    """The last lines of a unit's journal with secrets hidden; says so when there are none."""
    try:
        text = _run(["journalctl", "-u", unit, "-n", str(lines), "--no-pager", "-o", "cat", "-q"])
    except SystemdError as problem:
        return f"(the journal cannot be read: {problem})"
    return hide(text.strip(), secrets) or "(the journal of the unit is empty)"


def hide(text: str, secrets: Iterable[str]) -> str:
    """A text without the secrets."""
    for secret in sorted({secret for secret in secrets if secret}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
