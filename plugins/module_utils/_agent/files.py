# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the agent's state: replaced as a whole or not at all, and set aside when nobody can read them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, text: str, mode: int = 0o640) -> None:
    """Replace the file so that after a power cut it holds the old text or the new one; OSError when it cannot be."""
    beside = path.with_name(f".{path.name}.new")
    try:
        # not mkstemp: a name that is always the same leaves one file behind, not thousands, where a disk is full
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def set_aside(path: Path, why: str) -> str:
    """Rename a file that cannot be understood to ``<name>.broken``; return the words that tell it."""
    broken = path.with_name(f"{path.name}.broken")
    try:
        path.replace(broken)
    except OSError as problem:
        return f"{path} is broken ({why}) and cannot be set aside: {problem.strerror}"
    return f"{path} is broken ({why}): it was set aside as {broken}"
