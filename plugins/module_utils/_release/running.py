# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases the processes of this host were started with, and which files they use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible_collections.llmops.vllm.plugins.module_utils import _systemd
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import RELEASE_VARIABLE


def running_release(unit: str) -> str:
    """The release that the unit's process was started with; empty when none runs or nobody can tell."""
    with contextlib.suppress(LlmopsError):
        pid = _systemd.show(unit).main_pid
        if pid:
            return _release_of(Path(f"/proc/{pid}"))
    return ""


def running_releases() -> set[str]:
    """The releases that any process of this host was started with: also one that outlived its unit."""
    return {_release_of(process) for process in _processes()} - {""}


def files_in_use(below: Iterable[Path]) -> set[str]:
    """Files below these directories that a process of this host has mapped: programs, libraries, weights."""
    beginnings = tuple(f"{directory.resolve()}/" for directory in below)
    found: set[str] = set()
    for process in _processes():
        with contextlib.suppress(OSError):
            lines = (process / "maps").read_bytes().decode("utf-8", "replace").splitlines()
            paths = ("/" + line.partition("/")[2] for line in lines if "/" in line)
            found |= {path for path in paths if path.startswith(beginnings)}
    return found


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _release_of(process: Path) -> str:
    with contextlib.suppress(OSError):
        for entry in (process / "environ").read_bytes().split(b"\0"):
            name, _sep, value = entry.decode("utf-8", "replace").partition("=")
            if name == RELEASE_VARIABLE:
                return value
    return ""
