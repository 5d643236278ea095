"""An HTTP server in a thread, what fakes of services have in common."""

from __future__ import annotations

import http.server
import threading
from types import TracebackType
from typing import Any, TypeVar


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers HEAD and GET by ``answer``, and says nothing of it: tests ask the fake what was asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Answer a request."""
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()


Self_ = TypeVar("Self_", bound="Served")


class Served:
    """Serves on a free port of 127.0.0.1. Use it as a context manager."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port

    def __enter__(self: Self_) -> Self_:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
