# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host must have before and after weights are brought: room, and a user who can read them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess

from . import progress
from .request import Request
from .safetensors import ModelError


def check_space(request: Request, needed: int) -> None:
    """Raise ModelError unless so many bytes fit, with some to spare."""
    free = _free(request)
    if free < needed + request.min_free_bytes:
        raise ModelError(
            f"{request.root}: {free / 1e9:.1f} GB free, and {request.name} {request.revision} needs {needed / 1e9:.1f} "
            f"GB plus {request.min_free_bytes / 1e9:.1f} GB to spare (min_free_bytes): free it, or set llm_model_root"
        )


def expect(request: Request, needed: int) -> None:
    """Raise ModelError unless so many bytes fit; who waits is told how many will come."""
    check_space(request, needed)
    progress.tell(request, "bring", needed)


def check_free(request: Request) -> None:
    """Raise ModelError once there is no room to spare any more, as when a source had not told its size."""
    free = _free(request)
    if free < request.min_free_bytes:
        raise ModelError(
            f"{request.root}: only {free / 1e9:.1f} GB are left free, and {request.min_free_bytes / 1e9:.1f} GB are to "
            "be spared (min_free_bytes): free it, or set llm_model_root"
        )


def _free(request: Request) -> int:
    place = pathlib.Path(request.root)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def user_exists(name: str | None) -> bool:
    """Whether this host has the user."""
    with contextlib.suppress(KeyError):
        return bool(name and pwd.getpwnam(name))
    return False


def check_reader_exists(request: Request) -> None:
    """Raise ModelError before hours of copying, not after."""
    if request.reader and not user_exists(request.reader):
        raise ModelError(
            f"reader is {request.reader!r}, and this host has no such user: create it, or set llm_model_reader"
        )


def check_reader(request: Request, folder: pathlib.Path) -> None:
    """Raise ModelError when the service user cannot read the files: vLLM would say that they are not there."""
    if not request.reader or os.geteuid() != 0:
        return
    unreadable = ["find", str(folder), "-type", "f", "!", "-readable", "-print", "-quit"]
    closed = ["find", str(request.path.parent), "-maxdepth", "0", "!", "-executable", "-print"]
    for command in [unreadable] if folder == request.path else [unreadable, closed]:
        done = subprocess.run(
            ["runuser", "-u", request.reader, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        told = done.stdout.decode(errors="replace").strip()
        if done.returncode != 0 or told:
            raise ModelError(
                f"{folder}: the user {request.reader!r} cannot read it ({told}): open the directories above it"
            )
