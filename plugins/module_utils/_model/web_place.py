# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files below an address of the web: a mirror, or a peer."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from .fetch import TransferError

_SILENCE_S = 60.0  # without a byte, a connection counts as broken
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class Web:
    """A directory at an address; ``headers`` go there alone, not to where it redirects.

    ``direct``: no proxy of the environment is asked.
    """

    def __init__(self, address: str, headers: Mapping[str, str] | None = None, *, direct: bool = False) -> None:
        self.name = address.rstrip("/")
        self._headers = {name: str(value) for name, value in (headers or {}).items()}
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if direct else []))

    def open(self, name: str, offset: int) -> _Response:
        """Begin to read a file at this byte, or at its first one where the server knows no ranges."""
        try:
            response = self._ask("GET", name, {"Range": f"bytes={offset}-"} if offset else {})
        except TransferError as error:
            if not error.beyond:
                raise
            response = self._ask("GET", name, {})  # what was brought before was another file
        begin = 0
        if response.status == 206:
            told = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not told or int(told[1]) != offset:
                response.close()
                raise TransferError(
                    f"{self.name}/{name}: the server sent another part than was asked for", passing=True
                )
            begin = offset
        return _Response(f"{self.name}/{name}", response, begin)

    def size(self, names: Sequence[str]) -> int:
        """Return what the server says of the files together, 0 where it does not say it of each."""
        total = 0
        for name in names:
            try:
                with self._ask("HEAD", name, {}) as response:
                    total += int(response.headers["Content-Length"])
            except (TransferError, TypeError, ValueError):
                return 0
        return total

    def _ask(self, method: str, name: str, headers: Mapping[str, str]) -> Any:
        address = f"{self.name}/{urllib.parse.quote(name)}"
        request = urllib.request.Request(address, headers=dict(headers), method=method)
        request.add_header("Accept-Encoding", "identity")
        for header, value in self._headers.items():
            request.add_unredirected_header(header, value)
        try:
            return self._opener.open(request, timeout=_SILENCE_S)
        except urllib.error.HTTPError as error:
            with error:
                pass
            hint = " (a closed mirror needs llm_model_mirror_headers)" if error.code in (401, 403) else ""
            text = f"{method} {address}: {error.code} {error.reason}{hint}"
            raise TransferError(text, passing=error.code in _PASSING, beyond=error.code == 416) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise TransferError(f"{method} {address}: {reason}", passing=True) from error


class _Response:
    def __init__(self, address: str, response: Any, begin: int) -> None:
        self._address, self._response, self.begin = address, response, begin
        stated = response.headers.get("Content-Length")
        self._expected = int(stated) if stated and stated.isdigit() else None
        self._got = 0

    def read(self, limit: int) -> bytes:
        try:
            chunk: bytes = self._response.read(limit)
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(f"{self._address}: broke off ({error})", passing=True) from error
        self._got += len(chunk)
        return chunk

    def finish(self) -> None:
        if self._expected is not None and self._got != self._expected:
            text = f"{self._address}: broke off after {self._got} of {self._expected} bytes"
            raise TransferError(text, passing=True)

    def close(self) -> None:
        self._response.close()
