# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a run is: the name under which it holds leases and drains replicas, and whether such a run still lives.

A holder reads ``rollout 20261129T211857Z-4711 alice@ops1 9f86d081.4711.88213``: for people first; the last word is the
process on the controller, as the kernel's boot and process namespace, the process id, and its start time.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.admission import RUN, is_rollout

_PROC = Path("/proc")


def identity(action: str = "update", now: float | None = None) -> dict[str, Any]:
    """Return ``ident``, ``holder``, ``who``, ``action`` and ``started`` of a run that begins now in this process.

    ``now`` is the time of day in seconds since 1970.
    """
    moment = time.gmtime(time.time() if now is None else now)
    pid = _controller()
    ident = f"{time.strftime('%Y%m%dT%H%M%SZ', moment)}-{pid}"
    who = f"{_user()}@{socket.gethostname()}"
    return {
        "ident": ident,
        "action": action,
        "who": who,
        "holder": f"{RUN}{ident} {who} {_here()}.{pid}.{_began(pid)}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
    }


def dead(holders: Iterable[str]) -> list[str]:
    """Return those that are surely over: runs of this controller, since it was last started, without their process.

    Of a run on another machine nothing is known; its leases end by themselves.
    """
    return [holder for holder in holders if is_rollout(holder) and _over(holder.rsplit(" ", 1)[-1])]


def steps(marks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return ``name`` and ``seconds`` of each step, from the moments ``at`` which they began; the last only ends them.

    The way back is one step, ``go_back``, whatever steps it has.
    """
    names = [one["name"] for one in marks]
    if "go_back" in names:
        marks = [*marks[: names.index("go_back") + 1], marks[-1]]
    return [
        {"name": str(one["name"]), "seconds": round(float(after["at"]) - float(one["at"]), 1)}
        for one, after in zip(marks, marks[1:])
    ]


def _over(process: str) -> bool:
    place, _dot, rest = process.partition(".")
    pid, _dot, began = rest.partition(".")
    return place == _here() and pid.isdigit() and _began(int(pid)) != began


def _here() -> str:
    """A digest of what makes process ids comparable: the running kernel and the namespace."""
    boot, space = "", ""
    with contextlib.suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        space = os.readlink(_PROC / "self/ns/pid")  # noqa: PTH115
    return hashlib.sha256(f"{boot}{space}{socket.gethostname()}".encode()).hexdigest()[:8]


def _controller() -> int:
    """The process of ansible-playbook: filters run in its forks, which live for one task and have its command line."""
    pid = os.getpid()
    with contextlib.suppress(OSError, ValueError, IndexError):
        while _command(parent := int(_stat(pid)[1])) == _command(pid):
            pid = parent
    return pid


def _command(pid: int) -> bytes:
    return (_PROC / str(pid) / "cmdline").read_bytes()


def _stat(pid: int) -> list[str]:
    # the name of the program, in brackets, may hold spaces
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _began(pid: int) -> str:
    """The start time of a process in clock ticks since boot; empty when there is none."""
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[19]
    return ""


def _user() -> str:
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())
