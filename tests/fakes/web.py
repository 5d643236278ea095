"""An HTTP server in a thread, for fakes of services that speak JSON; as a program it runs one of them.

``python -m tests.fakes.web alertmanager|prometheus PORT_FILE`` writes the port that it got into the file.
"""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.served import Served

Answer = tuple[int, Any]  # status, and what becomes JSON; bytes stay as they are
Form = dict[str, str]


class Web(Served):
    """Asks ``answer(method, path, what was sent)``. Use it as a context manager.

    ``login``: ask for this ``(user, password)``. ``certificate``: speak TLS, with this file and its key beside it.
    ``down``: answer 503 to everything.
    """

    def __init__(
        self,
        answer: Callable[[str, str, Any], Answer],
        login: tuple[str, str] | None = None,
        certificate: pathlib.Path | None = None,
    ) -> None:
        self.down = False
        self.asked: list[tuple[str, str, Any]] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                split = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                form = {name: values[-1] for name, values in parse_qs(split.query).items()}
                if self.headers.get("Content-Type") == "application/json":
                    sent = json.loads(body)
                else:
                    sent = form | {name: values[-1] for name, values in parse_qs(body).items()}
                web.asked.append((self.command, split.path, sent))
                wanted = login and "Basic " + base64.b64encode(":".join(login).encode()).decode()
                if web.down:
                    status, told = 503, b"down"
                elif wanted and self.headers.get("Authorization") != wanted:
                    status, told = 401, b"Unauthorized"
                else:
                    status, told = answer(self.command, split.path, sent)
                data = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(told, bytes) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_DELETE = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(Handler)
        self.url = f"http://127.0.0.1:{self.port}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self.port}"


def main(what: str, port_file: str) -> None:
    from tests.fakes.alertmanager import Alertmanager
    from tests.fakes.prometheus import Prometheus

    services: dict[str, Callable[[], Callable[[str, str, Any], Answer]]]
    services = {"alertmanager": Alertmanager, "prometheus": Prometheus}
    with Web(services[what]()) as web:
        pathlib.Path(port_file).write_text(str(web.port))
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
