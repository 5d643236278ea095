# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where weights come from: one row for each way of bringing them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import directory, hub
from .bucket_place import Bucket
from .fetch import fetch
from .files import size_of
from .request import Request
from .safetensors import ModelError
from .web_place import Web


@dataclass(frozen=True)
class Source:
    """How files are brought to ``request.incoming``, under the lock of the revision.

    ``undo`` answers a failure, and returns what remains. ``compare`` raises ModelError unless the files, given with
    their SHA-256, are as the source describes them. ``selects``: whether ``include`` and ``exclude`` count.
    """

    bring: Callable[[Request, int], None]
    undo: Callable[[Request], str]
    compare: Callable[[Request, Mapping[str, str]], None] = lambda request, sums: None
    selects: bool = False


def _keep(request: Request) -> str:
    size = size_of(request.incoming)
    return f"What was downloaded ({size / 1e9:.1f} GB) stays in {request.incoming}, and the next run goes on with it"


def _from_mirror(request: Request, held: int) -> None:
    fetch(request, Web(request.source, request.mirror_headers))


def _from_peers(request: Request, held: int) -> None:
    """Ask one after the other: what one has sent, the next one goes on with, since all must send the same."""
    told = []
    for peer in request.peers:
        address = f"{peer['url']}/{urllib.parse.quote(request.name)}/{urllib.parse.quote(request.revision)}"
        try:
            fetch(request, Web(address, {"Authorization": f"Bearer {peer['token']}"}, direct=True), request.peers_sums)
        except ModelError as error:
            told.append(str(error))
        else:
            return
    raise ModelError("; ".join(told))


def _from_bucket(request: Request, held: int) -> None:
    given = (request.bucket_command, request.bucket_environment, request.bucket_secrets)
    fetch(request, Bucket(request.source, *given))


_TABLE = {
    ("file", False): Source(directory.copy, directory.discard),
    ("file", True): Source(directory.take, directory.give_back),
    **dict.fromkeys([("https", False), ("http", False)], Source(_from_mirror, _keep, selects=True)),
    **dict.fromkeys([("s3", False), ("gs", False)], Source(_from_bucket, _keep, selects=True)),
    ("peers", False): Source(_from_peers, directory.discard),
    ("hf", False): Source(hub.download, _keep, hub.compare, selects=True),
}


def source_of(request: Request) -> Source:
    """Return the row of the request's source, ``peers://`` being those that the request names."""
    return _TABLE[request.source.partition("://")[0], request.move]
