# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stopped unit may leave behind: processes, a socket that listens, memory of GPUs."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._systemd import UnitState
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.processes import PROC, Process, look, of_unit
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands

_SMI_SECONDS = 10.0
_LISTENS = "0A"
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


@dataclass
class Leftovers:
    """What one unit leaves at its port (0: not looked at) and on its GPUs. ``notes`` are for people."""

    port: int = 0
    address: str = ""
    gpus: Sequence[str] = ()
    proc: Path = PROC
    notes: list[str] = field(default_factory=list)
    _seen: dict[int, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self._address = ipaddress.ip_address(self.address) if self.address else None
        except ValueError:
            raise LlmopsError(
                f"address is {self.address!r}: give the IP address at which the replica listens"
            ) from None

    def remember(self, state: UnitState) -> None:
        """Keep which processes the unit has: later, nothing tells that they were its own."""
        for pid in of_unit(state.control_group, state.main_pid, self.proc):
            process = look(pid, self.proc)
            if process is not None:
                self._seen[pid] = process

    def alive(self) -> list[Process]:
        """The processes of the unit that have not ended."""
        now = [(then, look(then.pid, self.proc)) for then in self._seen.values()]
        return [found for then, found in now if found is not None and found.started == then.started]

    def found(self) -> list[str]:
        """What is left, each with its mend. What holds a port or memory because a process lives is not told twice."""
        return [left_process(one) for one in self.alive()] or [*self._listening()] or [*self._gpu_memory()]

    def _listening(self) -> Iterator[str]:
        for address, inode in listening(self.port, self.proc) if self.port else ():
            if not (self._address is None or address == self._address or {address, self._address} & _EVERYWHERE):
                continue
            holders = holders_of(inode, self.proc)
            who = " and ".join(one.words() for one in holders) or "a process that cannot be seen from here"
            mend = f"kill -9 {' '.join(str(one.pid) for one in holders)}" if holders else "ss -tlnp shows it"
            yield f"{who} listens at port {self.port} of {address}: end it ({mend}), or give the replica another port"

    def _gpu_memory(self) -> Iterator[str]:
        self.notes = []
        if not self.gpus:
            return
        which = ",".join(self.gpus)
        if shutil.which("nvidia-smi") is None:
            self.notes.append(f"nvidia-smi is not on this host: not looked whether GPU {which} is free")
            return
        query = ["--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
        done = commands.run(["nvidia-smi", f"--id={which}", *query], _SMI_SECONDS)
        if done.problem:
            told = f"{done.problem} {done.text.strip()}".strip()
            yield f"it is not known whether GPU {which} is free: {told}. Is its driver loaded?"
            return
        for line in done.text.splitlines():
            pid, _text, rest = line.partition(",")
            if not pid.strip().isdigit():
                continue
            words = f"process {pid.strip()} ({rest.strip()})"
            if look(int(pid), self.proc) is None:
                mend = f"reset it (nvidia-smi --gpu-reset --id={which}) or restart the host"
                yield f"GPU {which} has memory of {words}, which has ended: {mend}"
            else:
                self.notes.append(f"GPU {which} has memory of {words}, which is not of this unit: a start waits for it")


_EVERYWHERE = {ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")}


def left_process(process: Process) -> str:
    """A process that should have ended, with the mend."""
    if process.state == "D":
        return f"{process.words()} waits in the kernel: its driver (journalctl -k) or a restart of the host ends it"
    return f"{process.words()} has not ended: end it (kill -9 {process.pid})"


def listening(port: int, proc: Path = PROC) -> Iterator[tuple[Address, str]]:
    """Address and inode of each TCP socket that listens at a port."""
    for table in ("tcp", "tcp6"):
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError):  # a host without IPv6
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        for fields in map(str.split, lines):
            host, _rest, number = fields[1].partition(":")
            if fields[3] == _LISTENS and int(number, 16) == port:
                yield _address(host), fields[9]


def _address(text: str) -> Address:
    """An address as the kernel prints it: words of the machine's own byte order, in hexadecimal."""
    words = [int(word, 16).to_bytes(4, sys.byteorder) for word in re.findall(".{8}", text)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def holders_of(inode: str, proc: Path = PROC) -> list[Process]:
    """The processes that have a socket open."""
    pids = {int(link.parts[-3]) for link in proc.glob("[0-9]*/fd/*") if _target(link) == f"socket:[{inode}]"}
    found = [look(pid, proc) for pid in sorted(pids)]
    return [process for process in found if process is not None]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""
