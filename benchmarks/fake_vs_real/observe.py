"""Asks one vLLM, real or fake, the questions of the fake's README, and prints the answers as JSON.

Runs on a server host, as root, with the standard library alone: ``python3 observe.py unit vllm@r0`` asks the replica
that the role deployed, ``python3 observe.py command FAKE`` a server that it starts with the same configuration file.
All traffic stays on the host's own address.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# Not one token: as the first request after a start, that kills the worker of the CPU build (seen on vLLM 0.32.0).
PROMPT = "How are you?"
CURRENT = pathlib.Path("/etc/vllm/r0/current")
AWAIT_SECONDS = 200


def await_that(condition: Callable[[], Any], what: str) -> Any:
    """Return the condition's value as soon as it is true."""
    limit = time.monotonic() + AWAIT_SECONDS
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(0.1)
    raise SystemExit(f"not within {AWAIT_SECONDS} s: {what}")


def configuration() -> dict[str, Any]:
    """The replica's settings: one ``key: JSON`` a line."""
    lines = (CURRENT / "config.yaml").read_text().splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line and not line.startswith("#"))
    return {key.strip().strip('"'): json.loads(value) for key, _unused, value in pairs}


class Server:
    """A server with the replica's configuration; ``begin`` starts it anew, ``ended`` tells how it went."""

    def __init__(self) -> None:
        settings = configuration()
        self.host, self.port = settings["host"], settings["port"]
        self.key, self.model = settings["api-key"][0], settings["served-model-name"][0]

    def begin(self) -> None:
        raise NotImplementedError

    def main_pid(self) -> int:
        raise NotImplementedError

    def ended(self) -> int:
        raise NotImplementedError

    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}

    def call(self, method: str, path: str, body: Any = None, timeout: float = 20, key: bool = True) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        headers = self.headers() if key else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def status(self, method: str, path: str, body: Any = None, timeout: float = 20, key: bool = True) -> int | str:
        try:
            return self.call(method, path, body, timeout, key)[0]
        except TimeoutError:
            return "timeout"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__

    def completion(self, timeout: float = 20, **options: Any) -> int | str:
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": 1, **options}
        return self.status("POST", "/v1/completions", body, timeout)

    def stream(self) -> http.client.HTTPResponse:
        """Begin a long stream and return it after its first event."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=AWAIT_SECONDS)
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": 900, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body), self.headers())
        answer = connection.getresponse()
        answer.readline()
        return answer

    def engine(self) -> int:
        """The engine's process: a child of the server that names itself so."""
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = (entry / "status").read_text()
                if status.startswith("Name:\tVLLM::Engine") and f"PPid:\t{self.main_pid()}\n" in status:
                    return int(entry.name)
        raise SystemExit("no engine process")

    def ready(self) -> None:
        await_that(lambda: self.completion(5) == 200, "a completion")


class Unit(Server):
    """The replica that the role deployed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.before = 0

    def show(self, name: str) -> str:
        command = ["systemctl", "show", "-p", name, "--value", self.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def begin(self) -> None:
        subprocess.run(["systemctl", "reset-failed", self.name], check=False)
        subprocess.run(["systemctl", "restart", self.name], check=True)
        self.ready()
        self.before = self.main_pid()

    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def ended(self) -> int:
        await_that(lambda: self.main_pid() != self.before, "the end of the server")
        return int(self.show("ExecMainStatus"))


class Command(Server):
    """The fake, started with the replica's configuration and environment, while the replica is stopped."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        subprocess.run(["systemctl", "stop", "vllm@r0"], check=True)
        # As fast as the tiny model on a core of its own; enough for a drain to be seen.
        env = dict(os.environ, FAKE_VLLM_ITL_MS="5", VLLM_HTTP_TIMEOUT_KEEP_ALIVE="75")
        arguments = [self.command, "serve", "--config", str(CURRENT / "config.yaml")]
        self.process = subprocess.Popen(arguments, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.ready()

    def main_pid(self) -> int:
        return self.process.pid if self.process else 0

    def ended(self) -> int:
        return self.process.wait(AWAIT_SECONDS) if self.process else -1


def end_of(stream: http.client.HTTPResponse) -> str:
    """How a stream ended, in words that can be compared."""
    text = stream.read().decode(errors="replace")
    words = ["an error event" if '"error"' in text else "no error event"]
    words.append("[DONE]" if "[DONE]" in text else "no [DONE]")
    words.append("finish_reason length" if '"finish_reason":"length"' in text.replace(" ", "") else "no finish_reason")
    return f"HTTP {stream.status}, {', '.join(words)}"


def main(server: Server) -> dict[str, Any]:
    """Ask everything; a new start for everything that ends the server."""
    told: dict[str, Any] = {}
    looks = ("/health", "/ping", "/v1/models", "/metrics")
    server.begin()
    told["unknown model"] = server.completion(model="no")
    told["prompt longer than the context"] = server.completion(prompt="x" * 2000)
    unguarded = [("GET", "/v1/models"), ("GET", "/metrics"), ("POST", "/tokenize")]
    body = {"model": server.model, "prompt": PROMPT}
    told["without a key: /v1/models, /metrics, /tokenize"] = [
        server.status(method, path, body if method == "POST" else None, key=False) for method, path in unguarded
    ]
    told["diagnostics of no use to a client: /server_info, /sleep"] = [
        server.status("GET", "/server_info"),
        server.status("POST", "/sleep"),
    ]
    os.kill(server.engine(), signal.SIGSTOP)
    told["engine frozen: completion"] = server.completion(3)
    told["engine frozen: /health /ping /v1/models /metrics"] = [server.status("GET", path) for path in looks]
    os.kill(server.engine(), signal.SIGCONT)
    told["engine goes on: completion"] = server.completion(60)
    stream = server.stream()
    os.kill(server.engine(), signal.SIGKILL)
    told["engine killed: stream"] = end_of(stream)
    told["engine killed: exit status of the server"] = server.ended()
    server.begin()
    streams = [server.stream() for _turn in range(8)]
    os.kill(server.main_pid(), signal.SIGTERM)
    await_that(lambda: server.completion() != 200, "a refusal")
    told["drain: completion, /health"] = [server.completion(), server.status("GET", "/health")]
    told["drain: streams that ran"] = sorted({end_of(stream) for stream in streams})
    told["drain: exit status"] = server.ended()
    return told


if __name__ == "__main__":
    kind, argument = sys.argv[1:3]
    print(json.dumps(main(Unit(argument) if kind == "unit" else Command(argument))))
