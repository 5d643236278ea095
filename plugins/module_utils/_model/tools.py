# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that read buckets, and which of them reads which."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from .safetensors import ModelError


@dataclass(frozen=True)
class Tool:
    """How a command prints an object from a byte on, and the size of everything below an address."""

    cat: Callable[[str, int], list[str]]
    size: Callable[[str], list[str]]
    told: str  # a regular expression: the size in what it printed
    schemes: tuple[str, ...]
    ranges: bool = True


TOOLS: dict[str, Tool] = {
    "aws": Tool(
        lambda address, offset: ["s3", "cp", "--only-show-errors", address, "-"],
        lambda address: ["s3", "ls", "--recursive", "--summarize", f"{address}/"],
        r"Total Size: (\d+)",
        ("s3",),
        ranges=False,
    ),
    "gcloud": Tool(
        lambda address, offset: ["storage", "cat", *([f"--range={offset}-"] if offset else []), address],
        lambda address: ["storage", "du", "--summarize", address],
        r"(\d+)",
        ("gs",),
    ),
    "gsutil": Tool(
        lambda address, offset: ["-q", "cat", *(["-r", f"{offset}-"] if offset else []), address],
        lambda address: ["-q", "du", "-s", address],
        r"(\d+)",
        ("gs",),
    ),
    # The remote has the name of the scheme: [s3] or [gs] in rclone's configuration, or RCLONE_CONFIG_S3_TYPE ...
    "rclone": Tool(
        lambda address, offset: ["cat", "--offset", str(offset), address.replace("://", ":")],
        lambda address: ["size", "--json", address.replace("://", ":")],
        r'"bytes":\s*(\d+)',
        ("s3", "gs"),
    ),
}
USUAL = {"s3": "aws", "gs": "gcloud"}


def command_problem(source: str, command: str) -> str | None:
    """Return why this command cannot read this source, with the mend, or None; empty is the usual one."""
    scheme = source.partition("://")[0]
    name = pathlib.PurePath(command or USUAL[scheme]).name
    able = [tool for tool, about in TOOLS.items() if scheme in about.schemes]
    if name in able:
        return None
    return f"is {command!r}, which does not read {source}: give {' or '.join(able)}, with or without its path"


def check_command_exists(source: str, command: str) -> None:
    """Raise ModelError when this host lacks the command: hours before it would be missed, and in a dry run, too."""
    wanted = command or USUAL[source.partition("://")[0]]
    if shutil.which(wanted) is None:
        raise ModelError(
            f"{wanted}: this host has no such command, and {source} needs it: install it, or set "
            "llm_model_bucket_command"
        )
