# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a revision is on its way: said in a file by who brings it, read by who waits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from .files import size_of
from .request import Request

PROGRESS = "progress.json"


def tell(request: Request, phase: str, missing_bytes: int = 0) -> None:
    """Write what is to come: ``bring`` with the bytes that are missing yet, 0 when unknown, or ``check``.

    How much is there already is seen on the disk, so nobody writes it down. A full disk is no fault of this file.
    """
    if request.workspace.is_dir():
        total = size_of(request.workspace) + missing_bytes if missing_bytes else 0
        aside = request.workspace / f"{PROGRESS}.new"
        with contextlib.suppress(OSError):
            aside.write_text(json.dumps({"phase": phase, "total_bytes": total}))
            aside.replace(request.workspace / PROGRESS)


def forget(request: Request) -> None:
    """Nobody is on the way any more."""
    for name in (PROGRESS, f"{PROGRESS}.new"):
        (request.workspace / name).unlink(missing_ok=True)


def read(request: Request) -> dict[str, Any]:
    """Return ``phase``, ``total_bytes`` and ``bytes``; phase is empty when nobody has begun."""
    told: dict[str, Any] = {"phase": "", "total_bytes": 0, "bytes": 0}
    with contextlib.suppress(OSError, ValueError):
        told.update(json.loads((request.workspace / PROGRESS).read_text()))
        told["bytes"] = size_of(request.workspace)
    return told


def sentence(now: Mapping[str, Any], before: Mapping[str, Any], seconds: float) -> str:
    """Return a line for people, empty when there is nothing to say; ``seconds`` lie between the two readings."""
    there, total = now["bytes"] / 1e9, now["total_bytes"] / 1e9
    if not now["phase"]:
        return ""
    if now["phase"] == "check":
        return f"{there:.1f} GB are there and are being checked"
    rate = (now["bytes"] - before["bytes"]) / 1e9 / seconds if before["phase"] and seconds > 0 else 0.0
    pace = f", {rate * 1000:.0f} MB/s" if rate > 0 else ""
    if total <= there:
        return f"{there:.1f} GB{pace}"
    left = f", {(total - there) / rate:.0f} s to go" if rate > 0 else ""
    return f"{100 * there / total:.0f} % ({there:.1f} of {total:.1f} GB){pace}{left}"
