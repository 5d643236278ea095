"""Starts the real agent on this machine: its own process, with the replicas and the engine that a test gives it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.vllm.running import KEY, await_that
from tests.ports import free_port

DAEMON = "ansible_collections.llmops.vllm.plugins.module_utils._agent.daemon"


class FakeEngine:
    """FAKE of NGINX's admin socket in the lua form: keeps the view that it gets, counts nothing.

    Real NGINX with the real ``lb.lua`` is tested by test_nginx_lua.py and on hosts.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.views = path, []
        self.start()

    def start(self, view: dict[str, Any] | None = None) -> None:
        """Begin to answer, with no view or with that one."""
        self.view = view or {"id": "", "peers": []}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_PUT(self) -> None:
                fake.view = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.views.append(fake.view)
                self._answer()

            def _answer(self) -> None:
                peers = [
                    {"id": peer["id"], "inflight": 0, "good": 0, "failed": 0, "failed_in_row": 0}
                    for peer in fake.view["peers"]
                ]
                body = json.dumps(
                    {"view": fake.view["id"], "boot": 1, "peers": peers, "gone": [], "rows": 1, "reaped": 0}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_unused: Any) -> None:
                return

            def address_string(self) -> str:
                return "unix"

        self.server = socketserver.ThreadingUnixStreamServer(str(self.path), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def states(self) -> dict[str, str]:
        """Return the state of each replica in the view in force."""
        return {peer["id"]: peer["state"] for peer in self.view["peers"]}

    def stop(self) -> None:
        """Answer no more."""
        self.server.shutdown()
        self.server.server_close()
        self.path.unlink()


class Agent:
    """A running agent: ``states()`` is what its engine got, ``status()`` what it tells people."""

    def __init__(self, base: pathlib.Path, name: str, peers: tuple[Agent, ...] = (), **changes: Any) -> None:
        self.name, self.base, self.port = name, base / name, free_port()
        self.base.mkdir()
        self.places = {place: self.base / place for place in ("etc", "state", "run")}
        for place in (*self.places.values(), self.base / "etc" / "pools.d"):
            place.mkdir()
        self.engine = FakeEngine(self.base / "run" / "admin.sock")
        self.config: dict[str, Any] = {"api": 1, "name": name, "address": "127.0.0.1", "port": self.port}
        self.config |= {"engine": "nginx_lua", "admin_socket": str(self.engine.path), "run": str(self.places["run"])}
        self.config |= {"state": str(self.places["state"]), **changes}
        self.knows(*peers)
        (self.places["etc"] / "keys.json").write_text(json.dumps({"keys": [KEY]}))
        self.log = self.base / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def knows(self, *peers: Agent) -> None:
        """Make these its peers, from its next start."""
        self.config["peers"] = [{"name": peer.name, "address": "127.0.0.1", "port": peer.port} for peer in peers]
        (self.places["etc"] / "config.json").write_text(json.dumps(self.config))

    def members(self, ports: dict[str, int], **changes: Any) -> None:
        """Write the membership file: replicas of the pool ``chat`` by id and port."""
        replicas = [
            {"id": ident, "pool": "chat", "address": "127.0.0.1", "port": port, "model": "m"}
            for ident, port in ports.items()
        ]
        document = {"version": 1, "writer": "site", "remove_active": False, "replicas": replicas, **changes}
        self.write_members(json.dumps(document))

    def write_members(self, text: str) -> None:
        """Put a text into the place of the membership file."""
        aside = self.base / "site.json"
        aside.write_text(text)
        aside.replace(self.places["etc"] / "pools.d" / "site.json")

    def start(self) -> Agent:
        """Start it, and wait until it answers."""
        env = {**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"].split(":")[0]}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", DAEMON, str(self.places["etc"])], env=env, stdout=log, stderr=log
            )
        await_that(lambda: self.ask("GET", "/v1/status")[0] == 200, f"the agent {self.name} answers")
        return self

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Ask the control socket."""
        connection = http.client.HTTPConnection("agent", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(str(self.places["run"] / "control.sock"))
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return what it tells people."""
        return self.ask("GET", "/v1/status")[1]

    def row(self, ident: str) -> dict[str, Any]:
        """Return the row of a replica."""
        found: dict[str, Any] = next(row for row in self.status()["replicas"] if row["id"] == ident)
        return found

    def states(self) -> dict[str, str]:
        """Return the state of each replica in the view that its engine has."""
        return self.engine.states()

    def await_states(self, **states: str) -> float:
        """Wait until its engine has these states (``a_r0`` stands for ``a/r0``); return the seconds that it took."""
        began, wanted = time.monotonic(), {ident.replace("_", "/"): state for ident, state in states.items()}
        await_that(lambda: self.states().items() >= wanted.items(), f"{wanted}, not {self.states()}")
        return time.monotonic() - began

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """Return the lines of its log, or those of one event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if not event or line["event"] == event]


@contextlib.contextmanager
def agents(base: pathlib.Path) -> Iterator[Any]:
    """Give a function that makes agents; all of them end with the block."""
    made: list[Agent] = []

    def make(name: str, **options: Any) -> Agent:
        made.append(Agent(base, name, **options))
        return made[-1]

    try:
        yield make
    finally:
        for agent in made:
            if agent.process is not None and agent.process.poll() is None:
                agent.kill()
            agent.engine.server.shutdown()
            agent.engine.server.server_close()
