# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a unit, and what the kernel tells of one without being made to wait for it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Process:
    """One process. ``started`` tells it from a later one with the same number."""

    pid: int
    started: int
    command: str
    state: str
    memory: int  # bytes that are resident

    def words(self) -> str:
        """``process 4711 (VLLM::Worker, state S, 812 MiB)``."""
        return f"process {self.pid} ({self.command}, state {self.state}, {self.memory / 2**20:.0f} MiB)"


def look(pid: int, proc: Path = PROC) -> Process | None:
    """What runs under this number; None when nothing does, or what did has only not been reaped."""
    # no command line: reading it can hang for ever beside a broken GPU
    try:
        command, fields = _stat(proc / str(pid))
        threads = sum(1 for _entry in (proc / str(pid) / "task").iterdir())
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return None
    # the first thread of a process may have ended before one that the driver holds
    if fields[0] in "ZX" and threads <= 1:
        return None
    return Process(pid, int(fields[19]), command, fields[0], int(fields[21]) * resource.getpagesize())


def of_unit(control_group: str, main_pid: int, proc: Path = PROC) -> list[int]:
    """Processes of a unit: those of its control group, else its main process and what descends from it."""
    for root in GROUPS if control_group not in ("", "/") else ():
        group = Path(root) / control_group.lstrip("/")
        found: set[int] = set()
        with contextlib.suppress(OSError):
            for file in [group / "cgroup.procs", *group.rglob("*/cgroup.procs")]:
                found.update(int(pid) for pid in file.read_text().split())
        if found:
            return sorted(found)
    children: dict[int, list[int]] = {}
    for pid, parent in _parents(proc):
        children.setdefault(parent, []).append(pid)
    found_pids, waiting = [], [main_pid] if main_pid else []
    while waiting:
        pid = waiting.pop()
        found_pids.append(pid)
        waiting += children.get(pid, [])
    return sorted(found_pids)


def _parents(proc: Path) -> Iterator[tuple[int, int]]:
    for entry in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            yield int(entry.name), int(_stat(entry)[1][1])


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """CPU time that a process has used by itself; OSError when there is none under this number."""
    fields = _stat(proc / str(pid))[1]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(entry: Path) -> tuple[str, list[str]]:
    """The name of a process, which may hold anything within its brackets, and the fields after it: proc(5), from 3."""
    command, _sep, rest = (entry / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    return command, rest.split()
