# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a revision that is on the disk is still what was staged."""

from __future__ import annotations

import pathlib

from .._errors import LlmopsError
from . import content
from .files import SUMS, files_of, read_sums, sha256
from .host import check_reader, user_exists
from .request import Request
from .safetensors import ModelError

# Files other than weights are read by every check: a cut-off tokenizer has no header that tells. More is not cheap.
_SMALL = 64 << 20


def verify(request: Request, *, check_mode: bool = False) -> None:
    """Check a revision that is there: ``size`` without reading the weights, ``sha256`` by every byte."""
    if request.verify == "none":
        return
    sums = read_sums(request.path / SUMS)
    if sums is None:
        raise _broken(request, f"has no {SUMS}, so it was not staged by this collection")
    missing = sorted(name for name in sums if not (request.path / name).is_file())
    if missing:
        raise _broken(request, f"lacks {missing[0]}")
    added = sorted(name for name in files_of(request.path) if name not in sums and not _is_hidden(name))
    if added:
        raise _broken(request, f"holds {added[0]}, which was put there later: {SUMS} does not name it")
    try:
        content.check(request.path)
    except LlmopsError as error:
        raise _broken(request, f"is damaged ({error})") from error
    if request.weights and not content.has_weights(sums):
        raise _broken(request, f"holds no {content.WANTED}, {content.MEND}")
    for name, digest in sums.items():
        if _is_read(request, name) and sha256(request.path / name) != digest:
            raise _broken(request, f"holds {name}, which was altered: its SHA-256 is not that of {SUMS}")
    for name, digest in request.sha256sums.items():
        if sums.get(name) != digest.lower():
            raise _broken(request, f"holds {name} with SHA-256 {sums.get(name)}, and sha256sums expects {digest}")
    if not check_mode or user_exists(request.reader):
        check_reader(request, request.path)


def _is_read(request: Request, name: str) -> bool:
    small = not name.endswith(".safetensors") and (request.path / name).stat().st_size <= _SMALL
    return small or request.verify == "sha256"


def _is_hidden(name: str) -> bool:
    """Whether it is file-system noise (.nfs..., .snapshot), which vLLM never reads."""
    return any(part.startswith(".") for part in pathlib.PurePosixPath(name).parts)


def _broken(request: Request, what: str) -> ModelError:
    return ModelError(
        f"{request.path}: the revision {what}. A revision is never repaired in place: stop what uses it, remove it "
        "with state=absent, and stage it again"
    )
