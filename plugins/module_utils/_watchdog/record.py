# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flight record: what is known of a wedged replica in the last moment before it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._systemd import hide

PART_SECONDS = 5.0  # a part reads what hangs in the kernel beside a broken GPU; it is given up then
PART_LIMIT = 2 * 1024 * 1024  # bytes
KEPT = 20
KEPT_BYTES = 200 * 1024 * 1024

Part = Callable[[], str]


@dataclass
class _Running:
    """A part that is being made."""

    thread: threading.Thread
    text: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Record:
    """What was saved. ``problem`` is why nothing or not all of it could be."""

    directory: str
    problem: str = ""
    notes: dict[str, str] = field(default_factory=dict)  # parts that failed, with the reason


def collect(parts: Mapping[str, Part], seconds: float = PART_SECONDS) -> tuple[dict[str, str], dict[str, str]]:
    """Make all parts side by side; return the texts by part, and the reasons of those that failed. Never raises."""
    running = {name: _start(part) for name, part in parts.items()}
    end = time.monotonic() + seconds
    texts: dict[str, str] = {}
    notes: dict[str, str] = {}
    for name, one in running.items():
        one.thread.join(max(0.0, end - time.monotonic()))
        text = one.text
        if text is not None:
            texts[name] = text
        else:
            notes[name] = one.problem or f"not done within {seconds:g} s"
    return texts, notes


def _start(part: Part) -> _Running:
    def work() -> None:
        try:
            one.text = part()
        except Exception as problem:  # whatever a part meets, the others and the restart go on
            one.problem = f"{type(problem).__name__}: {problem}"

    one = _Running(threading.Thread(target=work, daemon=True))
    one.thread.start()
    return one


def save(
    root: Path, incident: str, facts: Mapping[str, Any], parts: Mapping[str, Part], secrets: Iterable[str]
) -> Record:
    """Save the record of an incident under ``root``, for its owner alone; a full disk is told in the result."""
    texts, notes = collect(parts)
    directory, hidden = root / incident, list(secrets)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        prune(root, KEPT - 1, KEPT_BYTES - (len(parts) + 1) * PART_LIMIT)
        directory.mkdir(mode=0o700, exist_ok=True)
        for name, text in texts.items():
            _write(directory / f"{name}.txt", hide(text, hidden))
        for name, note in notes.items():
            _write(directory / f"{name}.txt", f"({hide(note, hidden)})\n")
        _write(directory / "incident.json", json.dumps({**facts, "failed_parts": notes}, indent=1, default=str) + "\n")
    except OSError as problem:
        return Record(str(directory), f"{problem.filename or directory}: {problem.strerror or problem}", notes)
    return Record(str(directory), "", notes)


def _write(path: Path, text: str) -> None:
    data = text.encode("utf-8", "replace")
    if len(data) > PART_LIMIT:
        # the end of a journal and the beginning of a table both tell something
        half = PART_LIMIT // 2 - 64
        data = data[:half] + b"\n(... cut ...)\n" + data[-half:]
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)


def prune(root: Path, kept: int, kept_bytes: int) -> None:
    """Remove the oldest incidents until at most so many, and so many bytes, are left."""
    found = sorted((entry for entry in root.iterdir() if entry.is_dir()), reverse=True)
    total = 0
    for number, directory in enumerate(found):
        total += sum(_size(file) for file in directory.iterdir())
        if number >= kept or total > kept_bytes:
            shutil.rmtree(directory, ignore_errors=True)


def _size(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0
