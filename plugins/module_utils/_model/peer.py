# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves revisions that a host holds to other hosts: read-only, for a while, to who knows the token.

The process is a fork of the module that starts it, bound before it is forked, so that its address is known and a port
that is taken is told. It ends when it is told to, when nobody has asked for a while, and after its time in any case.
"""

from __future__ import annotations

import contextlib
import email.utils
import hmac
import http.server
import os
import pathlib
import pwd
import re
import secrets
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .files import SUMS, read_sums, sha256
from .request import Request, validate
from .safetensors import ModelError
from .throttle import Throttle

_SILENCE_S = 60.0
# The server dates its answers with it, and once the module has ended nothing can be imported any more.
_NEEDED_LATER = (email.utils,)


@dataclass(frozen=True)
class Wish:
    """What is to be served, and how: see the module's options."""

    root: str
    models: Sequence[Mapping[str, str]]
    address: str
    port: int = 0
    reader: str = ""
    bandwidth_bytes_per_second: int = 0
    idle: float = 120.0
    timeout: float = 14400.0


def revisions(wish: Wish) -> list[dict[str, str]]:
    """Return ``{name, revision, sums_sha256}`` of what is to be served; raise ModelError when one is not there."""
    found = []
    for model in wish.models:
        request = Request(model["name"], model["revision"], wish.root)
        validate(request)
        if read_sums(request.path / SUMS) is None:
            raise ModelError(f"{request.path}: is not staged here, so it cannot be served: stage it first")
        found.append({**model, "sums_sha256": sha256(request.path / SUMS)})
    return found


def start(wish: Wish) -> dict[str, Any]:
    """Begin to serve in a process of its own; return ``url``, ``token`` and ``pid``."""
    token = secrets.token_urlsafe(32)
    server = _Server(wish, token)
    port = server.server_address[1]
    pid = os.fork()
    if pid == 0:
        try:
            _leave(server.fileno())
            _become(wish.reader)
            server.serve()
        finally:
            os._exit(0)  # nothing of the module is done twice
    server.server_close()
    host = f"[{wish.address}]" if ":" in wish.address else wish.address
    return {"url": f"http://{host}:{port}", "token": token, "pid": pid}


def _leave(socket_number: int) -> None:
    """Let go of the session and of all files but the socket: who waits for the module must not wait for this."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, socket_number)
    os.closerange(socket_number + 1, os.sysconf("SC_OPEN_MAX"))


def _become(user: str) -> None:
    """Go on as the user who reads the models anyway."""
    with contextlib.suppress(KeyError):
        if user and os.geteuid() == 0:
            known = pwd.getpwnam(user)
            os.setgroups([])
            os.setgid(known.pw_gid)
            os.setuid(known.pw_uid)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, wish: Wish, token: str) -> None:
        self.token, self.stopped = token, threading.Event()
        self.throttle = Throttle(wish.bandwidth_bytes_per_second)
        self._idle, self._end = wish.idle, time.monotonic() + wish.timeout
        self._busy, self._seen, self._lock = 0, time.monotonic(), threading.Lock()
        self.files = dict(self._listed(wish))
        try:
            family, _kind, _protocol, _name, address = socket.getaddrinfo(
                wish.address, wish.port, type=socket.SOCK_STREAM
            )[0]
            self.address_family = family
            super().__init__((str(address[0]), int(address[1])), _Handler)
        except OSError as error:
            raise ModelError(
                f"cannot listen on {wish.address} port {wish.port} ({error}): give an address of this host and a port "
                "that is free (llm_model_peer_address, llm_model_peer_port)"
            ) from error

    def server_bind(self) -> None:
        """Without the search for the host's name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @staticmethod
    def _listed(wish: Wish) -> list[tuple[str, pathlib.Path]]:
        """Return path in the address -> file: nothing else can be asked for."""
        found = []
        for model in wish.models:
            request = Request(model["name"], model["revision"], wish.root)
            for name in [SUMS, *(read_sums(request.path / SUMS) or {})]:
                found.append((f"/{model['name']}/{model['revision']}/{name}", request.path / name))
        return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who asked sees a connection that breaks, and asks again."""

    def serve(self) -> None:
        """Serve until it is over."""
        threading.Thread(target=self.serve_forever, args=(0.2,), daemon=True).start()
        while not self.stopped.wait(0.2):
            now = time.monotonic()
            with self._lock:
                idle = not self._busy and now - self._seen > self._idle
            if idle or now > self._end:
                break

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request that runs."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._seen = time.monotonic()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Tell the size of a file."""
        self._answer()

    def do_GET(self) -> None:
        """Send a file, from a byte on."""
        self._answer()

    def do_POST(self) -> None:
        """End the process."""
        if self._is_known() and self.path == "/stop":
            self._head(204, 0)
            self.server.stopped.set()
        else:
            self._head(404, 0)

    def _is_known(self) -> bool:
        return hmac.compare_digest(
            self.headers.get("Authorization", "").encode(), f"Bearer {self.server.token}".encode()
        )

    def _answer(self) -> None:
        path = self.server.files.get(urllib.parse.unquote(self.path))
        if path is None or not self._is_known():
            self._head(404, 0)
            return
        with self.server.busy(), open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            begin = int(asked[1]) if asked else 0
            if asked and begin >= size:
                self._head(416, 0)
                return
            span = {"Content-Range": f"bytes {begin}-{size - 1}/{size}"} if asked else {}
            self._head(206 if asked else 200, size - begin, span)
            if self.command == "HEAD":
                return
            file.seek(begin)
            while chunk := file.read(self.server.throttle.chunk):
                self.server.throttle.take(len(chunk))
                self.wfile.write(chunk)

    def _head(self, status: int, length: int, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()


def stop(url: str, token: str, *, check_mode: bool = False) -> bool:
    """End the process that serves there; return whether one did."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    method, path = ("HEAD", "/") if check_mode else ("POST", "/stop")
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"}, method=method)
    try:
        with opener.open(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        if check_mode:
            return True
        raise ModelError(
            f"{method} {url}{path}: {error.code}: another process answers there, or the token is wrong"
        ) from error
    except OSError:
        return False
