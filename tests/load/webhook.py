"""``python -m tests.load.webhook --port 9099 --out FILE``: who is woken, as a file.

Stands for a pager: it takes what Alertmanager posts, and writes a line of JSON for each alert of a message: when it
came, at which path, its state, its labels. Ends by itself after ``--seconds``.
"""

from __future__ import annotations

import argparse
import http.server
import json
import pathlib
import threading
import time


class Pager(http.server.BaseHTTPRequestHandler):
    """Takes messages."""

    out: pathlib.Path
    lock = threading.Lock()

    def do_POST(self) -> None:  # noqa: N802
        """Write what came, and say that it came."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        came = {"at": time.time(), "path": self.path, "receiver": message.get("receiver", "")}
        lines = [
            json.dumps({**came, "status": alert["status"], "labels": alert["labels"], "starts_at": alert["startsAt"]})
            for alert in message["alerts"]
        ]
        with self.lock, self.out.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def main() -> None:
    """Take messages until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.webhook", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=7200)
    options = parser.parse_args()
    Pager.out = options.out
    server = http.server.ThreadingHTTPServer(("", options.port), Pager)
    end = threading.Timer(options.seconds, server.shutdown)
    end.daemon = True
    end.start()
    server.serve_forever()


if __name__ == "__main__":
    main()
