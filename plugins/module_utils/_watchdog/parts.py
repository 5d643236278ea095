# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a flight record: journal, metrics, unit, processes and their threads, sockets, memory, GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import Replica
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.processes import GROUPS, of_unit
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.commands import Run
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.config import Own
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.look import Unit
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.record import Part

JOURNAL_LINES = 500
COMMAND_SECONDS = 4.0  # less than a part may take, so that its own words are kept
_PS = "pid,ppid,user,stat,psr,rss,etimes,cputime,wchan:32,comm"  # no command lines: reading them can hang
_COUNTERS = (
    "memory.current",
    "memory.max",
    "memory.stat",
    "memory.events",
    "memory.pressure",
    "cpu.stat",
    "pids.current",
)
_SYSTEM = ("meminfo", "loadavg", "pressure/memory", "pressure/cpu", "pressure/io")


def parts(own: Own, unit: Unit, run: Run) -> Mapping[str, Part]:
    """Return what makes each part, by the name of its file."""

    def command(*words: str) -> Part:
        return lambda: _output(run, words)

    pids = of_unit(unit.control_group, unit.main_pid)
    return {
        "journal": command("journalctl", "-u", own.unit, "-n", str(JOURNAL_LINES), "--no-pager", "-o", "short-iso"),
        # where drivers tell of a GPU that fell off, and the kernel of tasks that hang
        "kernel": command("journalctl", "-k", "-n", str(JOURNAL_LINES), "--no-pager", "-o", "short-iso"),
        "unit": command("systemctl", "show", "--", own.unit),
        "processes": command("ps", "-o", _PS, "-p", ",".join(map(str, pids)) or "0"),
        "threads": lambda: threads(pids),
        "metrics": lambda: _metrics(own.url),
        "sockets": lambda: sockets(own.url, run),
        "memory": lambda: memory(unit),
        "gpu": command("nvidia-smi", "-q"),
    }


def _output(run: Run, words: Sequence[str]) -> str:
    done = run(words, COMMAND_SECONDS)
    if done.problem and not done.text:
        raise OSError(done.problem)
    return f"{done.text}\n({done.problem})\n" if done.problem else done.text


def _metrics(url: str) -> str:
    status, body = Replica(url).request("GET", "/metrics", timeout=COMMAND_SECONDS)
    return f"# answered {status}\n{body.decode('utf-8', 'replace')}"


def threads(pids: Sequence[int], proc: Path = Path("/proc")) -> str:
    """State, waiting place, system call and kernel stack of each thread."""
    lines = []
    for pid in pids:
        lines.append(f"== process {pid} {_read(proc / str(pid) / 'comm')}")
        for task in sorted((proc / str(pid) / "task").glob("[0-9]*"), key=lambda entry: int(entry.name)):
            state = _read(task / "stat").rpartition(")")[2].split()[:1]
            waits = _read(task / "wchan")
            lines.append(f"-- thread {task.name} {_read(task / 'comm')} state {' '.join(state)} wchan {waits}")
            lines.append(f"   syscall {_read(task / 'syscall')}")
            lines += [f"   {line}" for line in _read(task / "stack").splitlines()]
    return "\n".join(lines) + "\n" if lines else "(no process was found)\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as problem:
        return f"({path.name}: {problem.strerror})"


# --- sockets, memory


def sockets(url: str, run: Run, proc: Path = Path("/proc")) -> str:
    """TCP sockets of the replica's port, with their queues: from ss, else as the kernel lists them."""
    port = urlsplit(url).port
    done = run(["ss", "-tanpoi", f"( sport = :{port} or dport = :{port} )"], COMMAND_SECONDS)
    if not done.problem:
        return done.text
    wanted = re.compile(rf":{port:04X} ")
    rows = [line for name in ("tcp", "tcp6") for line in _read(proc / "net" / name).splitlines() if wanted.search(line)]
    return (
        f"({done.problem}; local address, remote address, state and queues in hexadecimal)\n" + "\n".join(rows) + "\n"
    )


def memory(unit: Unit, proc: Path = Path("/proc")) -> str:
    """Memory, load and pressure of the host, and what the control group of the unit counts."""
    files = [proc / name for name in _SYSTEM]
    for root in GROUPS if unit.control_group not in ("", "/") else ():
        group = Path(root) / unit.control_group.lstrip("/")
        files += [group / name for name in _COUNTERS if (group / name).exists()]
    return "".join(f"== {file}\n{_read(file)}\n" for file in files)
