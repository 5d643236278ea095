"""FAKE of the Hugging Face hub's HTTP interface, as far as ``hf download`` of huggingface_hub 2.4 uses it.

It stands in for the hub because tests must not need the world outside. Written to what the client of that version sends
and reads: the listing of a commit, ``HEAD`` and ``GET`` of a file with its commit, etag and size, large files behind a
redirect, byte ranges, and the errors by which it tells a gated repository and an unknown revision. No Xet, no pages.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from tests.fakes import served

_LARGE = (".safetensors", ".bin")


class FakeHub(served.Served):
    """One repository with one commit, on a port of its own. Use it as a context manager.

    ``token``: ask for this one. ``down``: answer 503 to everything. ``alter``: serve this file with one byte changed.
    ``cut``: break the connection after so many bytes of a large file, as often as ``cuts`` says.
    """

    def __init__(self, repository: str, commit: str, files: Mapping[str, bytes], *, token: str | None = None) -> None:
        self.repository, self.commit, self.files, self.token = repository, commit, dict(files), token
        self.down = False
        self.alter: str | None = None
        self.cut, self.cuts = 0, 0
        self.requests: list[str] = []  # "GET /path bytes=5-"
        hub = self

        class Handler(_Handler):
            fake = hub

        super().__init__(Handler)
        self.address = f"http://127.0.0.1:{self.port}"
        self.network = f"http://localhost:{self.port}"  # another host to the client: it sends no token

    def tree(self) -> list[dict[str, Any]]:
        """Return the listing of the commit as the hub gives it."""
        entries = []
        for name, content in sorted(self.files.items()):
            entry = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
            if name.endswith(_LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries


def git_blob(content: bytes) -> str:
    """Return the name that git gives to the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(served.Handler):
    fake: FakeHub

    def answer(self) -> None:
        hub = self.fake
        path = self.path.partition("?")[0]
        hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if hub.down:
            self._error(503, "", "the hub is down")
        elif path.startswith("/large/"):  # stands for the content network: no token goes there
            self._file(path[len("/large/") :])
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._error(401, "GatedRepo", f"Access to model {hub.repository} is restricted")
        elif path == f"/api/models/{hub.repository}/tree/{hub.commit}":
            self._send(200, json.dumps(hub.tree()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{hub.repository}/"):
            self._error(404, "RevisionNotFound", "Invalid rev id")
        elif path.startswith(f"/{hub.repository}/resolve/{hub.commit}/"):
            self._resolve(path.split("/", 5)[5])
        else:
            self._error(404, "RepoNotFound", "Repository not found")

    def _resolve(self, name: str) -> None:
        content = self.fake.files.get(name)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": self.fake.commit, "ETag": f'"{git_blob(content)}"'}
        if name.endswith(_LARGE):
            headers |= {
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.fake.network}/large/{name}",
            }
            self._send(302, b"", headers)
        else:
            self._file(name, headers)

    def _file(self, name: str, headers: Mapping[str, str] | None = None) -> None:
        content = self.fake.files[name]
        if self.fake.alter == name:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        extra = {"Accept-Ranges": "bytes", **(headers or {})}
        if asked:
            extra["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._send(206 if asked else 200, content[begin:], extra)

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._send(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **headers})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fake.cuts and len(body) > self.fake.cut and self.path.startswith("/large/"):
            self.fake.cuts -= 1
            self.wfile.write(body[: self.fake.cut])
            self.close_connection = True
            return
        self.wfile.write(body)
