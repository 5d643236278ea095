"""Starts the FAKE vLLM for tests on this machine: real processes on a free port of 127.0.0.1."""

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
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.fakes.vllm import build
from tests.ports import free_port
from tools import tiny_model

KEY = "k" * 32
AWAIT_SECONDS = 15


def await_that(condition: Callable[[], Any], what: str, seconds: float = AWAIT_SECONDS) -> Any:
    """Return the first true answer of the condition; fail when there is none in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def lay_out(base: pathlib.Path) -> pathlib.Path:
    """Lay out the wheel's contents, as an installer would, and two models."""
    with zipfile.ZipFile(build.build(base)) as wheel:
        wheel.extractall(base / "site")
    for variant in "ab":
        tiny_model.write(base / variant, variant)
    return base


def configure(base: pathlib.Path, name: str, **settings: Any) -> tuple[int, list[str], dict[str, str]]:
    """Write the settings of a server; return its port, and command and environment that start it."""
    port = free_port()
    model = settings.pop("model", str(base / "a"))
    config = {"model": model, "host": "127.0.0.1", "port": port, "served-model-name": ["m", "m@a"]}
    config |= {"api-key": [KEY], "max-num-seqs": 4, "max-model-len": 4096, "shutdown-timeout": 20, **settings}
    path = base / f"{name}.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "--config", str(path)]
    quick = {"PYTHONPATH": str(base / "site"), "FAKE_VLLM_START_SECONDS": "0.05", "FAKE_VLLM_TTFT_MS": "5"}
    return port, command, quick


class Fake:
    """A running fake server."""

    def __init__(self, base: pathlib.Path, name: str, env: dict[str, str], **settings: Any) -> None:
        self.port, command, quick = configure(base, name, **settings)
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(command, env={**os.environ, **quick, **env}, stderr=subprocess.PIPE)

    def get(self, path: str, key: str = KEY) -> int:
        """Return the status of a GET."""
        return self.call("GET", path, key=key)[0]

    def call(self, method: str, path: str, body: Any = None, key: str = KEY) -> tuple[int, str]:
        """Return status and text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=AWAIT_SECONDS)
        try:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def complete(self, tokens: int = 4, **options: Any) -> tuple[int, str]:
        """Return status and text of a completion that is not streamed."""
        body = {"model": "m", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True, **options}
        return self.call("POST", "/v1/completions", body)

    def post(self, tokens: int, **options: Any) -> http.client.HTTPConnection:
        """Send a completion and return the connection, on which the answer can be read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=AWAIT_SECONDS)
        body = {"model": "m", "prompt": "x", "max_tokens": tokens, **options}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"})
        return connection

    def stream(self, tokens: int) -> http.client.HTTPResponse:
        """Begin a stream and return it after its first event."""
        answer = self.post(tokens, stream=True).getresponse()
        assert b"data:" in answer.readline()
        return answer

    def children(self) -> dict[str, int]:
        """Engine and worker, by the names that they give themselves."""
        found, parents = {}, [self.process.pid]
        while parents:
            pid = parents.pop()
            for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                found[pathlib.Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
                parents.append(int(child))
        return found

    def metric(self, row: str) -> float:
        """Return the value of a row of ``/metrics`` by the words before it."""
        for line in self.call("GET", "/metrics")[1].splitlines():
            name, _sep, value = line.rpartition(" ")
            if name == row:
                return float(value)
        raise AssertionError(f"no metric {row}")

    def busy(self) -> tuple[float, float]:
        """Return requests running and waiting."""
        labels = '{engine="0",model_name="m"}'
        running, waiting = (self.metric(f"vllm:num_requests_{state}{labels}") for state in ("running", "waiting"))
        return running, waiting

    def fault(self, kind: str, **options: Any) -> None:
        """Switch a fault."""
        status, text = self.call("POST", "/fake/fault", {"kind": kind, **options})
        assert status == 200, text

    def kill(self) -> None:
        """End all of it at once."""
        with contextlib.suppress(OSError):
            for pid in [*self.children().values(), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
        self.process.wait(5)
        if self.process.stderr:
            self.process.stderr.close()


@contextlib.contextmanager
def starter(base: pathlib.Path, name: str) -> Iterator[Callable[..., Fake]]:
    """Give a function that starts fakes and waits until they serve; all of them end with the block."""
    started: list[Fake] = []

    def begin(env: dict[str, str] | None = None, **settings: Any) -> Fake:
        fake = Fake(base, f"{name[:40].replace('/', '_')}-{len(started)}", env or {}, **settings)
        started.append(fake)
        await_that(lambda: fake.get("/health") == 200, "the fake serves")
        return fake

    try:
        yield begin
    finally:
        for fake in started:
            fake.kill()
