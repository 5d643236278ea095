# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One revision of a model that should be on the disk, and where everything about it lies."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .revision import BUCKETS, revision_problem, source_problem
from .safetensors import ModelError
from .tools import command_problem

INCOMING = ".incoming"


@dataclass
class Request:
    """One revision that should be there: see the module's options."""

    name: str
    revision: str
    root: str
    source: str = ""
    move: bool = False
    hub_command: str = "hf"
    hub_token: str | None = None
    hub_endpoint: str | None = None
    include: Sequence[str] = field(default_factory=list)
    exclude: Sequence[str] = field(default_factory=list)
    sha256sums: Mapping[str, str] = field(default_factory=dict)
    weights: bool = True
    reader: str | None = None
    size_bytes: int = 0
    min_free_bytes: int = 1 << 30
    mirror_headers: Mapping[str, str] = field(default_factory=dict)
    bucket_command: str = ""
    bucket_environment: Mapping[str, str] = field(default_factory=dict)
    bucket_secrets: Mapping[str, str] = field(default_factory=dict)
    peers: Sequence[Mapping[str, str]] = field(default_factory=list)
    peers_sums: str = ""
    parallel: int = 4
    bandwidth_bytes_per_second: int = 0
    timeout: float = 14400
    verify: str = "size"

    @property
    def path(self) -> pathlib.Path:
        """Where the revision lies once it is whole."""
        return pathlib.Path(self.root) / self.name / self.revision

    @property
    def workspace(self) -> pathlib.Path:
        """Where everything else about it lies: on the same file system, so that the rename is atomic."""
        return pathlib.Path(self.root) / INCOMING / f"{self.name}@{self.revision}"

    @classmethod
    def of_workspace(cls, workspace: pathlib.Path) -> Request:
        """Return the request whose workspace this is; its source is not known any more."""
        name, _at, revision = workspace.name.rpartition("@")
        return cls(name, revision, str(workspace.parent.parent), timeout=0)

    @property
    def incoming(self) -> pathlib.Path:
        """Where it is written until then; another source or other patterns never go on with what these began."""
        return self.workspace / f"{'move' if self.move else 'copy'}-{self._digest()}"

    @property
    def transfer(self) -> pathlib.Path:
        """Where the caller puts the files of a ``controller://`` source."""
        return self.workspace / f"transfer-{self._digest()}"

    def _digest(self) -> str:
        meaning = json.dumps([self.source, list(self.include), list(self.exclude)])
        return hashlib.sha256(meaning.encode()).hexdigest()[:8]


def validate(request: Request) -> None:
    """Raise ModelError for a request that can never succeed; touches nothing."""
    wrong = source_problem(request.source) if request.source else None  # a removal needs none
    if wrong:
        raise ModelError(f"source {wrong}")
    wrong = revision_problem(request.source, request.revision)
    if wrong:
        raise ModelError(f"revision {wrong}")
    if "/" in request.name or request.name.startswith(".") or not request.name:
        raise ModelError(f"name is {request.name!r}: it becomes a directory, so use no slash and no dot at its begin")
    wrong = command_problem(request.source, request.bucket_command) if request.source.startswith(BUCKETS) else None
    if wrong:
        raise ModelError(f"bucket_command {wrong}")
    for name, least in (("parallel", 1), ("bandwidth_bytes_per_second", 0)):
        if getattr(request, name) < least:
            raise ModelError(f"{name} is {getattr(request, name)}: give {least} or more")
    if request.peers and not re.fullmatch(r"[0-9a-f]{64}", request.peers_sums):
        raise ModelError(f"peers_sums is {request.peers_sums!r}: give the sums_sha256 that a peer told, 64 digits")
    if request.move and not request.source.startswith("file://"):
        raise ModelError(f"move is true and source {request.source!r}: only a file:// directory can be moved")
