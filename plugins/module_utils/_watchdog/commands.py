# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs programs that may hang for ever, as they do beside a broken GPU, and comes back all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Callable

LIMIT = 2 * 1024 * 1024  # bytes of output that are kept


@dataclass(frozen=True)
class Done:
    """What a program left: its exit status (None: it did not end), its output, and what went wrong in words."""

    code: int | None
    text: str
    problem: str = ""


Run = Callable[[Sequence[str], float], Done]  # a command and its seconds


def run(command: Sequence[str], seconds: float) -> Done:
    """Run a program for so many seconds at most. Never raises; one that cannot be killed is left behind."""
    program = shutil.which(command[0])
    if program is None:
        return Done(None, "", f"{command[0]} is not on this host")
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as problem:
        return Done(None, "", f"{command[0]}: {problem.strerror or problem}")
    kept = bytearray()
    reader = threading.Thread(target=_read, args=(process.stdout, kept), daemon=True)
    reader.start()
    end, words = time.monotonic() + seconds, ""
    reader.join(seconds)
    try:
        process.wait(max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        words = f"{' '.join(command)}: not done within {seconds:g} s"
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    reader.join(0.2)
    code = None if words else process.returncode
    if code:
        words = f"{' '.join(command)}: ended with code {code}"
    return Done(code, bytes(kept).decode("utf-8", "replace"), words)


def _read(pipe: IO[bytes] | None, kept: bytearray) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError, ValueError):
            while part := pipe.read1(65536):  # type: ignore[attr-defined]
                kept += part[: LIMIT - len(kept)]
