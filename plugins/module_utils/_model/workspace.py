# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory beside the models in which one revision is prepared, and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from . import progress
from .files import make_directory
from .request import Request
from .safetensors import ModelError

_LOCK = "lock"
_POLL_S = 0.5


@contextlib.contextmanager
def lock(request: Request) -> Iterator[int]:
    """Hold the lock of this revision: a second run waits, and then finds the work done."""
    make_directory(request.workspace)
    handle = os.open(request.workspace / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    give_up = time.monotonic() + request.timeout
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise ModelError(
                        f"{request.path}: another run has been staging it for {request.timeout:g} s (timeout) and "
                        f"still holds {request.workspace / _LOCK}: wait for it, or end it"
                    ) from None
                time.sleep(_POLL_S)
        try:
            yield handle
        finally:
            progress.forget(request)
    finally:
        os.close(handle)


def leftovers(request: Request) -> list[pathlib.Path]:
    """Return what runs left aside: all but the lock, for which others may wait, and what is told to who waits."""
    if not request.workspace.is_dir():
        return []
    return sorted(path for path in request.workspace.iterdir() if path.is_dir())


def idle_seconds(request: Request) -> float:
    """Return how long nothing below these leftovers has been written."""
    paths = [path for top in leftovers(request) for path in (top, *top.rglob("*"))]
    return time.time() - max((path.lstat().st_mtime for path in paths), default=0.0)
