"""The fake vLLM has the measured vices: each is switched on and seen from outside, against real processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _vllm_api, _vllm_probe

from tests.fakes.vllm import build
from tools import tiny_model

KEY = "k" * 32
AWAIT_SECONDS = 15
PROBE = pathlib.Path(_vllm_probe.__file__)


def await_that(condition: Callable[[], Any], what: str) -> Any:
    limit = time.monotonic() + AWAIT_SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        time.sleep(0.02)
    pytest.fail(f"not within {AWAIT_SECONDS} s: {what}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The wheel's contents, as an installer would lay them out, and two models."""
    base = tmp_path_factory.mktemp("fake")
    with zipfile.ZipFile(build.build(base)) as wheel:
        wheel.extractall(base / "site")
    for variant in "ab":
        tiny_model.write(base / variant, variant)
    return base


class Fake:
    """A running fake server."""

    def __init__(self, base: pathlib.Path, name: str, env: dict[str, str], **settings: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        model = settings.pop("model", str(base / "a"))
        config = {"model": model, "host": "127.0.0.1", "port": self.port, "served-model-name": ["m", "m@a"]}
        config |= {"api-key": [KEY], "max-num-seqs": 4, "max-model-len": 4096, "shutdown-timeout": 20, **settings}
        path = base / f"{name}.yaml"
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
        self.replica = _vllm_api.Replica(f"http://127.0.0.1:{self.port}", KEY, 5)
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "--config", str(path)]
        quick = {"PYTHONPATH": str(base / "site"), "FAKE_VLLM_START_SECONDS": "0.05", "FAKE_VLLM_TTFT_MS": "5"}
        self.process = subprocess.Popen(command, env={**os.environ, **quick, **env}, stderr=subprocess.PIPE)

    def get(self, path: str, key: str = KEY) -> int:
        return self.call("GET", path, key=key)[0]

    def call(self, method: str, path: str, body: Any = None, key: str = KEY) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=AWAIT_SECONDS)
        try:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def complete(self, tokens: int = 4, **options: Any) -> tuple[int, str]:
        body = {"model": "m", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True, **options}
        return self.call("POST", "/v1/completions", body)

    def stream(self, tokens: int) -> http.client.HTTPResponse:
        """Begin a stream and return it after its first event."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=AWAIT_SECONDS)
        body = {"model": "m", "prompt": "x", "max_tokens": tokens, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
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

    def fault(self, kind: str, **options: Any) -> None:
        assert self.call("POST", "/fake/fault", {"kind": kind, **options})[0] == 200


@pytest.fixture
def start(site: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Fake]]:
    started: list[Fake] = []

    def begin(env: dict[str, str] | None = None, **settings: Any) -> Fake:
        fake = Fake(site, f"{request.node.name[:40].replace('/', '_')}-{len(started)}", env or {}, **settings)
        started.append(fake)
        await_that(lambda: fake.get("/health") == 200, "the fake serves")
        return fake

    yield begin
    for fake in started:
        with contextlib.suppress(OSError):
            for pid in [*fake.children().values(), fake.process.pid]:
                os.kill(pid, signal.SIGKILL)
        fake.process.wait(5)


def test_answers_as_a_replica_for_the_modules(start: Callable[..., Fake]) -> None:
    fake = start()
    assert fake.complete(7)[0] == 200
    seen = _vllm_api.look(fake.replica)
    assert (seen["health"], seen["model"], seen["revision"], seen["running"]) == ("ok", "m", "a", 0)
    assert seen["kv_cache_tokens"] > 0


def test_revisions_answer_differently_and_each_the_same_every_time(
    start: Callable[..., Fake], site: pathlib.Path
) -> None:
    def text(fake: Fake) -> str:
        return json.loads(fake.complete(16)[1])["choices"][0]["text"]

    first, second = start(), start(model=str(site / "b"))
    assert text(first) == text(first) != text(second)


def test_key_guards_v1_only(start: Callable[..., Fake]) -> None:
    fake = start()
    assert fake.get("/v1/models", key="wrong") == 401
    assert fake.get("/metrics", key="wrong") == 200
    assert fake.get("/tokenize", key="wrong") == 200


@pytest.mark.parametrize("process", ["VLLM::EngineCor", "VLLM::Worker"])
def test_frozen_engine_or_worker_leaves_everything_but_generation_at_200(
    start: Callable[..., Fake], process: str
) -> None:
    fake = start()
    os.kill(fake.children()[process], signal.SIGSTOP)
    connection = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=1)
    body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 1})
    connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {KEY}"})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert [fake.get(path) for path in ("/health", "/ping", "/v1/models", "/metrics")] == [200] * 4
    os.kill(fake.children()[process], signal.SIGCONT)
    await_that(lambda: fake.complete(1)[0] == 200, "generation goes on")


@pytest.mark.parametrize("process", ["VLLM::EngineCor", "VLLM::Worker"])
def test_killed_engine_or_worker_ends_streams_with_an_error_inside_200_and_the_server_with_exit_status_0(
    start: Callable[..., Fake], process: str
) -> None:
    fake = start()
    stream = fake.stream(2000)
    os.kill(fake.children()[process], signal.SIGKILL)
    rest = stream.read().decode()
    assert stream.status == 200
    assert '"error"' in rest
    assert "[DONE]" in rest
    assert fake.complete()[0] == 500
    assert fake.process.wait(AWAIT_SECONDS) == 0


def test_drain_finishes_streams_and_answers_500_to_new_requests_while_health_is_200(
    start: Callable[..., Fake],
) -> None:
    fake = start()
    stream = fake.stream(150)
    fake.process.send_signal(signal.SIGTERM)
    await_that(lambda: fake.complete()[0] == 500, "new requests are refused")
    assert "cannot schedule new futures after shutdown" in fake.complete()[1]
    assert fake.get("/health") == 200
    rest = stream.read().decode()
    assert '"finish_reason": "length"' in rest
    assert "[DONE]" in rest
    assert '"error"' not in rest
    assert fake.process.wait(AWAIT_SECONDS) == 0


def test_shutdown_timeout_0_cuts_streams(start: Callable[..., Fake]) -> None:
    fake = start(**{"shutdown-timeout": 0})
    stream = fake.stream(2000)
    fake.process.send_signal(signal.SIGTERM)
    assert '"error"' in stream.read().decode()
    assert fake.process.wait(AWAIT_SECONDS) == 0


def test_shutdown_timeout_0_can_hang(start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_HANG_ON_TERM": "1"}, **{"shutdown-timeout": 0})
    fake.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        fake.process.wait(0.5)


def test_idle_connections_are_closed_after_the_keep_alive_time(start: Callable[..., Fake]) -> None:
    fake = start({"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "0.2"})
    with socket.create_connection(("127.0.0.1", fake.port), 5) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in idle.recv(4096)
        assert idle.recv(4096) == b""


def test_full_queue_is_503_and_counted(start: Callable[..., Fake]) -> None:
    fake = start(**{"max-num-seqs": 1, "max-num-queued-reqs": 1})
    stream = fake.stream(300)
    status, text = fake.complete()
    assert (status, json.loads(text)["error"]["code"]) == (503, 503)
    assert (
        'admission_rejections_total{engine="0",model_name="m",reason="queue_full"} 1.0'
        in fake.call("GET", "/metrics")[1]
    )
    stream.close()


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [("error_500", 500, "EngineCore"), ("garbage", 200, "garbage"), ("reject", 503, "overloaded")],
)
def test_faults_at_run_time(start: Callable[..., Fake], kind: str, status: int, words: str) -> None:
    fake = start()
    fake.fault(kind)
    told = fake.complete()
    assert told[0] == status
    assert words in told[1]
    assert fake.get("/health") == 200
    fake.fault("none")
    assert fake.complete()[0] == 200


def test_slow_fault_shows_in_the_time_to_first_token(start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_TTFT_MS": "20"})
    fake.fault("slow", factor=20)
    begin = time.monotonic()
    assert fake.complete(1)[0] == 200
    assert time.monotonic() - begin > 0.35


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"no-such-flag": 5}, "unrecognized arguments"),
        ({"max-num-seqs": "many"}, "invalid int value"),
        ({"kv-cache-dtype": "fp9"}, "invalid choice"),
    ],
)
def test_bad_flag_ends_with_exit_status_2(site: pathlib.Path, settings: dict[str, Any], words: str) -> None:
    fake = Fake(site, "bad", {}, **settings)
    assert fake.process.wait(AWAIT_SECONDS) == 2
    assert fake.process.stderr is not None
    assert words in fake.process.stderr.read().decode()


def test_false_for_an_unknown_key_passes_as_in_vllm(start: Callable[..., Fake]) -> None:
    assert start(**{"no-such-key": False}).complete()[0] == 200


def test_the_probe_judges_it_as_it_judges_vllm(site: pathlib.Path) -> None:
    cases = {
        "good": ({}, ""),
        "misspelt": ({"max-num-seq": 4}, "max-num-seqs"),
        "silent": ({"no-such-key": False}, "no-such-key"),
        "long": ({"max-model-len": 100000}, "100000"),
        "heads": ({"tensor-parallel-size": 3}, "tensor"),
    }
    configs = [
        {"name": name, "settings": {"model": str(site / "a"), **settings}, "environment": {}}
        for name, (settings, _) in cases.items()
    ]
    request = {"configs": configs, "user": "", "environment": {}}
    code = PROBE.read_text() + f"\nraise SystemExit(main({json.dumps(request)!r}))\n"
    env = {**os.environ, "PYTHONPATH": str(site / "site")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    found = {row["name"]: row for row in answers if "errors" in row}
    assert found["good"]["errors"] == [], done.stderr
    assert found["good"]["effective"]["max_model_len"] == 4096
    for name, (_, words) in cases.items():
        assert words in json.dumps(found[name]["errors"]), found[name]


def test_wheel_is_deterministic_and_has_the_command(tmp_path: pathlib.Path) -> None:
    first, second = build.build(tmp_path / "1"), build.build(tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        assert b"vllm = vllm.entrypoints.cli.main:main" in wheel.read("vllm-0.32.0+fake.dist-info/entry_points.txt")
