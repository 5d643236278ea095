# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source ``file://``: a directory or mount on the host, copied, or taken itself."""

from __future__ import annotations

import pathlib
import shutil

from .files import SUMS, files_of
from .host import expect
from .request import Request
from .safetensors import ModelError


def source_directory(request: Request) -> pathlib.Path:
    """Return the directory; raise ModelError when it is not there."""
    source = pathlib.Path(request.source.removeprefix("file://"))
    if not source.is_dir():
        raise ModelError(f"source {request.source}: no directory {source} on this host: mount it, or mend the path")
    return source


def copy(request: Request, held: int) -> None:
    """Copy the directory anew: what a killed run left is not trusted."""
    source = source_directory(request)
    shutil.rmtree(request.incoming, ignore_errors=True)  # of a run that was killed
    files = files_of(source)
    expect(request, sum((source / name).stat().st_size for name in files))
    for name in [*files, *([SUMS] if (source / SUMS).is_file() else [])]:
        target = request.incoming / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)


def discard(request: Request) -> str:
    """Remove what was copied."""
    shutil.rmtree(request.incoming, ignore_errors=True)
    return "Nothing of it remains on this host"


def take(request: Request, held: int) -> None:
    """Take the directory itself, or go on with the one that a killed run had taken."""
    if request.incoming.is_dir() and not pathlib.Path(request.source.removeprefix("file://")).exists():
        return  # a run was killed after it had taken the source
    source = source_directory(request)
    shutil.rmtree(request.incoming, ignore_errors=True)
    try:
        source.rename(request.incoming)
    except OSError as error:
        raise ModelError(f"{source} cannot be moved below {request.root} ({error}): set move to false") from error


def give_back(request: Request) -> str:
    """Put the directory back where it was taken from."""
    source = pathlib.Path(request.source.removeprefix("file://"))
    if request.incoming.is_dir() and not source.exists():
        request.incoming.rename(source)
    return f"The files are still in {source}" if source.exists() else "Nothing was changed"
