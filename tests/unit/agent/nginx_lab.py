"""A real NGINX with the role's own configuration, in a temporary directory on free ports, and replicas behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Peer, View

from tests import certificates
from tests.balancer_role import ROLE, render
from tests.fakes.vllm.running import await_that
from tests.ports import free_port

KEY = "sk-client-0123456789"
WORKERS = 2
LUA_MODULE = pathlib.Path("/etc/nginx/modules-enabled/50-mod-http-lua.conf")

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None or os.geteuid() != 0, reason="needs the nginx program, and root to start its workers"
)
needs_lua = pytest.mark.skipif(not LUA_MODULE.exists(), reason="needs libnginx-mod-http-lua and lua-cjson")


class Replica:
    """A server that does what ``mode`` says; all of them share one event loop in one thread.

    ok; busy (503 with Retry-After); broken (500); reset (before an answer); silent; slow: streams an event each 20 ms
    until the test says ``finish``; cut: two events of a stream, then a reset; raw: the bytes of ``answer``.
    """

    def __init__(self, name: str, pool: str = "default") -> None:
        self.name, self.pool, self.mode, self.answer = name, pool, "ok", b""
        self.requests, self.open = 0, 0
        self.port = 0
        self.finish = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # the lab's end
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [line[15:] for line in head.splitlines() if line.lower().startswith("content-length:")]
                await reader.readexactly(int(lengths[0]) if lengths else 0)
                self.requests += 1
                self.open += 1
                try:
                    await self.reply(writer)
                finally:
                    self.open -= 1
        writer.transport.abort()

    async def reply(self, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        body = json.dumps({"from": self.name}).encode()
        length = f"Content-Length: {len(body)}\r\n\r\n".encode()
        if self.mode == "ok":
            writer.write(b"HTTP/1.1 200 OK\r\n" + length + body)
        elif self.mode == "busy":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n" + length + body)
        elif self.mode == "broken":
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\n" + length + body)
        elif self.mode == "raw":
            writer.write(self.answer)
        elif self.mode == "silent":
            await self.finish.wait()
        elif self.mode in ("slow", "cut"):
            await self.stream(writer)
        if self.mode in ("reset", "raw", "cut"):
            raise ConnectionResetError
        await writer.drain()

    async def stream(self, writer: asyncio.StreamWriter) -> None:
        """Send a stream of events, token by token, in chunks."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        count = 0
        while not self.finish.is_set() and not (self.mode == "cut" and count == 2):
            writer.write(_chunk(f'data: {{"from": "{self.name}", "token": {count}}}\n\n'))
            await writer.drain()
            if writer.transport.is_closing():
                raise ConnectionResetError
            count += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.finish.wait(), 0.02)
        if self.mode == "slow":
            writer.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")


def _chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


class Replicas:
    """The replicas of a test, in a thread of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.all: dict[str, Replica] = {}
        self.servers: dict[str, asyncio.AbstractServer] = {}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, action: Any) -> Any:
        """Run a coroutine in the replicas' loop."""
        return asyncio.run_coroutine_threadsafe(action, self.loop).result(15)

    async def _start(self, name: str, pool: str) -> Replica:
        replica = Replica(name, pool)
        server = await asyncio.start_server(replica.serve, "127.0.0.1", 0, limit=1 << 24, backlog=1024)
        replica.port = server.sockets[0].getsockname()[1]
        self.all[name], self.servers[name] = replica, server
        return replica

    def start(self, name: str, pool: str = "default") -> Replica:
        """Start a replica."""
        replica: Replica = self.run(self._start(name, pool))
        return replica

    def finish(self) -> None:
        """Let all streams come to their end."""
        for replica in self.all.values():
            self.loop.call_soon_threadsafe(replica.finish.set)

    async def close(self, name: str) -> None:
        """Stop listening: new connections are refused from now on."""
        self.servers[name].close()

    async def _stop(self) -> None:
        for server in self.servers.values():
            server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def stop(self) -> None:
        """End all of them."""
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


class Lab:
    """One NGINX. ``peers`` by name; ``put`` sends a view with changes to them."""

    def __init__(self, home: pathlib.Path, form: str, replicas: Replicas, **settings: Any) -> None:
        self.home, self.form, self.replicas = home, form, replicas
        self.port, self.status_port = free_port(), free_port()
        self.admin = str(home / "run/nginx-llm/admin.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.peers: dict[str, Peer] = {}
        for folder in ("run/nginx-llm", "run/llm-agent", "log", "state", "view"):
            (home / folder).mkdir(parents=True)
        certificates.write(home, "tls", name="llm.example.com", days=30)
        (home / "tls.pem").write_text((home / "tls.crt").read_text() + (home / "tls.key").read_text())
        self.settings = {
            "__llm_balancer_lua_dir": str(ROLE / "files"),
            "__llm_balancer_secrets_dir": str(home),
            "__llm_balancer_view_dir": str(home / "view"),
            "llm_balancer_client_keys": [
                {"name": "c", "key": KEY},
                {"name": "o", "key": KEY + "-other", "pool": "other"},
            ],
            "llm_balancer_http_port": self.port,
            "llm_balancer_nginx_upstream": form,
            "llm_balancer_pools": [{"name": name, "replicas": []} for name in ("default", "other")],
            "llm_balancer_port": free_port(),
            "llm_balancer_status_port": self.status_port,
            "llm_balancer_worker_connections": 4096,
            **settings,
        }
        self.write()

    def write(self) -> None:
        """Write the configuration as the role would, with the places of this lab."""
        (self.home / "keys.conf").write_text(render("nginx_keys.conf.j2", **self.settings))
        text = render("nginx.conf.j2", **self.settings)
        for place, here in (
            ("/var/log/nginx", "log"),
            ("/run/", "run/"),
            ("/var/lib/llm-agent", "state"),
        ):
            text = text.replace(place, str(self.home / here) + ("/" if here.endswith("/") else ""))
        text = text.replace("worker_processes auto;", f"worker_processes {WORKERS};")
        (self.home / "nginx.conf").write_text(text)

    def command(self, *words: str) -> list[str]:
        """Return the command line of NGINX with this configuration."""
        return ["nginx", "-c", str(self.home / "nginx.conf"), "-g", "daemon off;", *words]

    def start(self) -> None:
        """Start NGINX and wait until it answers."""
        with open(self.home / "out", "ab") as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=out)
        await_that(lambda: self.process and (self.process.poll() is not None or self.health()), "NGINX serves")
        assert self.process.poll() is None, (self.home / "out").read_text()

    def stop(self) -> None:
        """End NGINX at once."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def kill(self) -> None:
        """Kill the master and its workers, as a lack of memory would."""
        assert self.process
        workers = self.workers()
        self.process.kill()
        self.process.wait(5)
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    def reload(self) -> None:
        """Reload and wait until new workers serve."""
        assert self.process
        before = set(self.workers())
        self.process.send_signal(signal.SIGHUP)
        await_that(lambda: len(set(self.serving()) - before) == WORKERS, "new workers serve")

    def workers(self) -> list[int]:
        """Return the process ids of all workers."""
        assert self.process
        path = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def serving(self) -> list[int]:
        """Return the workers that are not shutting down."""
        return [pid for pid in self.workers() if b"shutting" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]

    def health(self) -> dict[str, Any]:
        """Return what /lb-health says."""
        found: dict[str, Any] = json.loads(ask(self.status_port, "GET", "/lb-health")[2])
        return found

    # Views

    def view(self, **settings: Any) -> View:
        """Return the view of the present peers."""
        return View(tuple(self.peers.values()), **{"slow_start": 0, **settings})

    def put(self, changes: dict[str, dict[str, Any]] | None = None, **settings: Any) -> dict[str, Any]:
        """Give every replica its peer, change some of them, send the view and return the engine's answer."""
        for name, replica in self.replicas.all.items():
            self.peers.setdefault(name, Peer(name, replica.pool, "127.0.0.1", replica.port, "up"))
        for name, change in (changes or {}).items():
            self.peers[name] = dataclasses.replace(self.peers[name], **change)
        view = self.view(**settings)
        status, found = self.send(view.text())
        assert (status, found.get("view")) == (200, view.id), found
        return found

    def send(self, text: str | bytes) -> tuple[int, dict[str, Any]]:
        """PUT a text and return the engine's status and answer."""
        return self._admin("PUT", text)

    def ledger(self) -> dict[str, Any]:
        """Return what the engine says of itself, with its peers by id."""
        status, found = self._admin("GET")
        assert status == 200, found
        found["peers"] = {peer["id"]: peer for peer in found["peers"]}
        found["gone"] = {peer["id"]: peer["inflight"] for peer in found["gone"]}
        return found

    def inflight(self) -> dict[str, int]:
        """Return the requests in flight by replica, without zeros."""
        return {name: peer["inflight"] for name, peer in self.ledger()["peers"].items() if peer["inflight"]}

    def _admin(self, method: str, body: str | bytes | None = None) -> tuple[int, dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(self.admin)
            connection = http.client.HTTPConnection("localhost")
            connection.sock = line
            connection.request(method, "/lb", body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    # Requests

    def ask(self, path: str = "/v1/completions", method: str = "POST", key: str = KEY) -> tuple[int, Any, str]:
        """Return status, headers and text of a request."""
        return ask(self.port, method, path, {"Authorization": f"Bearer {key}"}, "{}" if method == "POST" else None)

    def spread(self, count: int, **options: Any) -> Counter[str]:
        """Send requests one after another and return how many each replica, or each status, answered."""
        found: Counter[str] = Counter()
        for _turn in range(count):
            status, _headers, text = self.ask(**options)
            found[json.loads(text)["from"] if status == 200 else str(status)] += 1
        return found

    def request(self, *headers: str) -> socket.socket:
        """Send a request and return its connection."""
        line = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        head = [
            "POST /v1/completions HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {KEY}",
            "Content-Length: 2",
            *headers,
        ]
        line.sendall("\r\n".join([*head, "", "{}"]).encode())
        return line

    def stream(self) -> socket.socket:
        """Begin a stream and return its connection after the first event."""
        line = self.request()
        seen = b""
        while b"data:" not in seen:
            more = line.recv(65536)
            assert more, seen
            seen += more
        return line

    def log(self) -> list[dict[str, Any]]:
        """Return the rows of the access log."""
        return [json.loads(line) for line in (self.home / "log/llm_access.log").read_text().splitlines()]

    def errors(self) -> str:
        """Return the error log."""
        return (self.home / "log/error.log").read_text()


def ask(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
) -> tuple[int, Any, str]:
    """Return status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def read_all(line: socket.socket) -> bytes:
    """Read a stream to its end or to the end of its connection, and close it."""
    seen = b""
    with line:
        while not seen.endswith(b"\r\n0\r\n\r\n"):  # a header may end with 0, too
            more = line.recv(65536)
            if not more:
                break
            seen += more
    return seen


@contextlib.contextmanager
def lab(form: str, **settings: Any) -> Iterator[Lab]:
    """Give a lab that is written but not started; everything of it ends with the block."""
    replicas = Replicas()
    home = pathlib.Path(tempfile.mkdtemp(prefix="llm-lab-"))  # short: a unix socket's path has 107 characters
    home.chmod(0o755)
    it = Lab(home, form, replicas, **settings)
    try:
        yield it
    finally:
        it.stop()
        replicas.stop()
        shutil.rmtree(home)
