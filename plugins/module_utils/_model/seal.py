# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a revision of files that lie aside: checked, checksummed, visible by one rename."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping

from . import content, progress
from .files import LEFT_OUT, SUMS, files_of, make_directory, read_sums, sha256, sync, wanted
from .host import check_reader
from .request import Request
from .safetensors import ModelError
from .sources import Source
from .workspace import leftovers


def seal(request: Request, source: Source) -> None:
    """Check what lies aside, write its checksums, and make it visible under its name."""
    folder = request.incoming
    if not folder.is_dir():
        raise ModelError(f"{request.source}: nothing was brought: look at the source")
    progress.tell(request, "check")
    files = files_of(folder)
    links = [name for name in files if (folder / name).is_symlink()]
    if links:
        raise ModelError(f"{folder / links[0]}: is a link, and a revision must hold its own files: set move to false")
    stated = read_sums(folder / SUMS) or {}
    content.check(folder)
    if request.weights and not content.has_weights(files):
        selected = ", or mend include and exclude" if source.selects else ""
        raise ModelError(f"{request.source}: holds no {content.WANTED}: complete it{selected}, {content.MEND}")
    sums = {name: sha256(folder / name) for name in files}
    source.compare(request, sums)
    if source.selects:
        stated = {name: digest for name, digest in stated.items() if wanted(name, request.include, request.exclude)}
    _compare(request, sums, stated, f"The source's own {SUMS} says so: copy the source again")
    _compare(request, sums, request.sha256sums, "sha256sums says so: mend it, or bring the right files")

    for name in LEFT_OUT:
        shutil.rmtree(folder / name, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        sync(path)
    folder.chmod(0o755)
    make_directory(request.path.parent)
    check_reader(request, folder)
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    (folder / SUMS).chmod(0o644)
    sync(folder / SUMS)
    sync(folder)
    for path in leftovers(request):
        if path != folder:
            shutil.rmtree(path, ignore_errors=True)
    folder.rename(request.path)
    sync(request.path.parent)


def _compare(request: Request, sums: Mapping[str, str], expected: Mapping[str, str], because: str) -> None:
    for name, digest in expected.items():
        if name.split("/")[0] not in LEFT_OUT and sums.get(name) != digest.lower():
            state = "is missing" if name not in sums else f"was altered: SHA-256 {sums[name]}, expected {digest}"
            raise ModelError(f"{request.source}: {name} {state}. {because}")
