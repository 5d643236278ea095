"""FAKE of a mirror: a web server with the files of one directory and their ``SHA256SUMS``, which breaks on demand.

It stands in for object stores and file servers; written to RFC 9110: ``HEAD``, ``GET``, byte ranges, 416.
"""

from __future__ import annotations

import hashlib
import re
import threading
import urllib.parse
from collections.abc import Mapping

from tests.fakes import served


class FakeMirror(served.Served):
    """Files below ``/models/tiny``. Use it as a context manager.

    ``alter``: serve this file with a byte changed, ``alters`` times. ``cut``: break the connection after so many bytes,
    ``cuts`` times. ``wrong``: serve this file shorter than it is, and say so. ``ranges``: know byte ranges. ``status``:
    answer this to everything. ``authorization``: ask for this header. ``elsewhere``: redirect all to this address.
    ``hold``: keep files back until it is set.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.alter, self.alters = "", 0
        self.cut, self.cuts = 0, 0
        self.wrong = ""
        self.ranges = True
        self.status = 0
        self.authorization = ""
        self.elsewhere = ""
        self.hold = threading.Event()
        self.hold.set()
        self.requests: list[str] = []  # "GET name bytes=5-"
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        mirror = self

        class Handler(_Handler):
            fake = mirror

        super().__init__(Handler)
        self.address = f"http://127.0.0.1:{self.port}/models/tiny"

    def sums(self) -> bytes:
        """Return the listing of the files as they should be."""
        lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(self.files.items()))
        return "".join(lines).encode()

    def begun(self) -> list[str]:
        """Return the names of the files that were asked for, weights first of all."""
        return [line.split()[1] for line in self.requests if line.startswith("GET") and "SHA256SUMS" not in line]


class _Handler(served.Handler):
    fake: FakeMirror

    def answer(self) -> None:
        fake = self.fake
        name = urllib.parse.unquote(self.path).removeprefix("/models/tiny/")
        with fake.lock:
            fake.requests.append(f"{self.command} {name} {self.headers.get('Range', '')}".strip())
            fake.headers.append(dict(self.headers))
        content = fake.sums() if name == "SHA256SUMS" and name not in fake.files else fake.files.get(name)
        if fake.status:
            self._send(fake.status, b"")
        elif fake.authorization and self.headers.get("Authorization") != fake.authorization:
            self._send(401, b"")
        elif content is None:
            self._send(404, b"")
        elif fake.elsewhere:
            self._send(302, b"", {"Location": f"{fake.elsewhere}/{urllib.parse.quote(name)}"})
        else:
            self._file(name, content)

    def _file(self, name: str, content: bytes) -> None:
        fake = self.fake
        with fake.lock:
            altered = fake.alter == name and fake.alters > 0 and self.command == "GET"
            fake.alters -= altered
        if altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        if fake.wrong == name:
            content = content[:-7]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if fake.ranges else None
        begin = int(asked[1]) if asked else 0
        if asked and begin >= len(content):
            self._send(416, b"")
            return
        extra = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if asked else {}
        if self.command == "GET" and name != "SHA256SUMS":
            fake.hold.wait(30)
        self._send(206 if asked else 200, content[begin:], extra)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with self.fake.lock:
            broken = self.fake.cuts > 0 and len(body) > self.fake.cut
            self.fake.cuts -= broken
        self.wfile.write(body[: self.fake.cut] if broken else body)
        if broken:
            self.close_connection = True
