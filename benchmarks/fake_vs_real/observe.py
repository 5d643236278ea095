"""Starts one vLLM, real or fake, asks it the questions of the README's table, and prints the answers as JSON.

Runs on a server host, with the standard library alone: ``python3 observe.py VLLM MODEL``. All traffic stays on
127.0.0.1.
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
import tempfile
import time
from collections.abc import Callable
from typing import Any

PORT = 18800
KEY = "k" * 32
START_SECONDS = 300
END_SECONDS = 60
STREAM = {"model": "m", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}


class Server:
    """One start of the server under test."""

    def __init__(self, command: str, model: str, **settings: Any) -> None:
        config = {"model": model, "host": "127.0.0.1", "port": PORT, "served-model-name": ["m"], "api-key": [KEY]}
        config |= {"max-model-len": 1024, "max-num-seqs": 4, "kv-cache-memory-bytes": 67108864, "enforce-eager": True}
        config |= {"distributed-executor-backend": "uni", "shutdown-timeout": 30, "max-num-queued-reqs": 4, **settings}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            file.write("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
        env = dict(os.environ, VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
        env |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "fork", "VLLM_HOST_IP": "127.0.0.1"}
        env |= {"GLOO_SOCKET_IFNAME": "lo", "FAKE_VLLM_ITL_MS": "5"}
        env.pop("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", None)  # the default is one of the questions
        self.process = subprocess.Popen(
            [command, "serve", "--config", file.name],
            env=env,
            stdin=subprocess.DEVNULL,  # closed, its descriptor would become a pipe that a child closes again
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        limit = time.monotonic() + START_SECONDS
        while self.status("GET", "/health") != 200:
            if self.process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the server did not start: exit status {self.process.poll()}")
            time.sleep(0.2)

    def call(self, method: str, path: str, body: Any = None, timeout: float = 10) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
        try:
            connection.request(method, path, json.dumps(body) if body else None, self.headers())
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    @staticmethod
    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    def status(self, method: str, path: str, body: Any = None, timeout: float = 10) -> int | str:
        try:
            return self.call(method, path, body, timeout)[0]
        except TimeoutError:
            return "timeout"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__

    def stream(self) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=END_SECONDS)
        connection.request("POST", "/v1/completions", json.dumps(STREAM), self.headers())
        answer = connection.getresponse()
        answer.readline()
        return answer

    def child(self, begin: str) -> int:
        """The process of the server's session whose name begins so."""
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(entry.name)) == self.process.pid and (entry / "comm").read_text().startswith(begin):
                    return int(entry.name)
        raise SystemExit(f"no process {begin}")

    def exit_status(self) -> int | str:
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return f"none within {END_SECONDS} s"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def end_of(stream: http.client.HTTPResponse) -> str:
    """How a stream ended, in words that can be compared."""
    text = stream.read().decode(errors="replace")
    error = "an error event" if '"error"' in text else "no error event"
    return f"HTTP {stream.status}, {error}, {'[DONE]' if '[DONE]' in text else 'no [DONE]'}"


def one_token() -> dict[str, Any]:
    return {"model": "m", "prompt": "x", "max_tokens": 1}


def main(command: str, model: str) -> dict[str, Any]:
    """Ask everything; a new start for everything that ends the server."""
    told: dict[str, Any] = {}
    looks: Callable[[Server], list[Any]] = lambda s: [  # noqa: E731
        s.status("GET", path) for path in ("/health", "/ping", "/v1/models", "/metrics")
    ]
    with Server(command, model) as server:
        told["unknown model"] = server.status("POST", "/v1/completions", {"model": "no", "prompt": "x"})
        told["too long a prompt"] = server.status("POST", "/v1/completions", {"model": "m", "prompt": "x" * 2000})
        told["without a key: /v1/models, /metrics, /tokenize"] = without_key()
        told["idle connection closed after s"] = idle_seconds()
        engine = server.child("VLLM::Engine")
        os.kill(engine, signal.SIGSTOP)
        told["engine frozen: completion"] = server.status("POST", "/v1/completions", one_token(), 3)
        told["engine frozen: /health /ping /v1/models /metrics"] = looks(server)
        os.kill(engine, signal.SIGCONT)
        told["engine goes on: completion"] = server.status("POST", "/v1/completions", one_token(), 30)
        streams = [server.stream() for _ in range(4)]
        told["queue full: completion"] = server.status("POST", "/v1/completions", one_token())
        os.kill(engine, signal.SIGKILL)
        told["engine killed: stream"] = end_of(streams[0])
        told["engine killed: exit status of the server"] = server.exit_status()
    with Server(command, model) as server:
        stream = server.stream()
        server.process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + 10
        while server.status("POST", "/v1/completions", one_token()) == 200 and time.monotonic() < limit:
            pass
        told["drain: completion, /health"] = [server.status("POST", "/v1/completions", one_token())]
        told["drain: completion, /health"].append(server.status("GET", "/health"))
        told["drain: stream that ran"] = end_of(stream)
        told["drain: exit status"] = server.exit_status()
    return told


def without_key() -> list[int]:
    found = []
    for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("POST", "/tokenize")):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        body = json.dumps({"model": "m", "prompt": "x"}) if method == "POST" else None
        connection.request(method, path, body, {"Content-Type": "application/json"})
        found.append(connection.getresponse().status)
        connection.close()
    return found


def idle_seconds() -> int:
    """Whole seconds after which an idle kept connection is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=END_SECONDS)
    connection.request("GET", "/health")
    connection.getresponse().read()
    begin = time.monotonic()
    assert connection.sock is not None
    connection.sock.recv(1)
    return round(time.monotonic() - begin)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
