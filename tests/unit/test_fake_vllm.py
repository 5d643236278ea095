"""The fake vLLM has the measured vices: each is switched on and seen from outside, against real processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import api as vllm_api
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import probe as vllm_probe

from tests.fakes.vllm import build
from tests.fakes.vllm.running import AWAIT_SECONDS, KEY, Fake, await_that

PROBE = pathlib.Path(vllm_probe.__file__)
MEASURED = pathlib.Path(build.__file__).parent / "metrics_0.32.json"


def test_answers_as_a_replica_for_the_modules(start: Callable[..., Fake]) -> None:
    fake = start()
    assert fake.complete(7)[0] == 200
    seen = vllm_api.look(vllm_api.Replica(fake.url, KEY, 5))
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
    status, text = fake.call("POST", "/tokenize", {"prompt": "hello"}, key="wrong")
    assert (status, json.loads(text)["count"]) == (200, 5)


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


def refuses(fake: Fake) -> bool:
    try:
        assert fake.complete()[0] == 500
    except ConnectionRefusedError:
        return True
    return False


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
    await_that(lambda: refuses(fake), "the port closes while the server still lives")
    assert fake.process.poll() is None
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
    assert '"finish_reason":"length"' in rest
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


@pytest.mark.parametrize("streamed", [False, True])
def test_full_queue_is_503_and_counted(start: Callable[..., Fake], streamed: bool) -> None:
    fake = start(**{"max-num-seqs": 1, "max-num-queued-reqs": 1})
    stream = fake.stream(2000)
    status, text = fake.complete(stream=streamed)
    assert (status, json.loads(text)["error"]["code"]) == (503, 503)
    assert fake.metric('vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"}') == 1
    stream.close()


def test_burst_of_streams_over_the_limit_gets_the_refusal_inside_http_200(start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_ADMISSION_MS": "300"}, **{"max-num-queued-reqs": 2})
    burst = [fake.post(50, stream=True) for _turn in range(5)]
    answers = [connection.getresponse() for connection in burst]
    texts = [answer.read().decode() for answer in answers]
    assert [answer.status for answer in answers] == [200] * 5
    refused = [text for text in texts if '"code":503' in text]
    assert len(refused) == 3
    assert all(text.endswith("data: [DONE]\n\n") for text in texts)


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
        for name, (settings, _unused) in cases.items()
    ]
    request = {"configs": configs, "user": "", "environment": {}, "history": {"removed": {}, "since": {}}}
    code = PROBE.read_text() + f"\nraise SystemExit(main({json.dumps(request)!r}))\n"
    env = {**os.environ, "PYTHONPATH": str(site / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    found = {row["name"]: row for row in answers if "errors" in row}
    assert found["good"]["errors"] == [], done.stderr
    assert found["good"]["effective"]["max_model_len"] == 4096
    for name, (_unused, words) in cases.items():
        assert words in json.dumps(found[name]["errors"]), found[name]


def test_wheel_is_deterministic_and_has_the_command(tmp_path: pathlib.Path) -> None:
    first, second = build.build(tmp_path / "1"), build.build(tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        assert b"vllm = vllm.entrypoints.cli.main:main" in wheel.read("vllm-0.32.0+fake.dist-info/entry_points.txt")


def test_metrics_have_the_names_types_labels_and_buckets_that_were_measured(start: Callable[..., Fake]) -> None:
    fake = start()
    fake.complete()
    page = fake.call("GET", "/metrics")[1]
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    rows = re.findall(r"^([a-z_A-Z0-9:]+)(?:\{(.*)\})? \S+$", page, re.MULTILINE)
    for name, measured in json.loads(MEASURED.read_text()).items():
        if name.startswith("http_request_duration") and name.endswith("_created"):
            continue
        assert types.get(name) == measured["type"], name
        endings = ("", "_bucket", "_count", "_sum") if measured["type"] == "histogram" else ("",)
        found = [dict(re.findall(r'(\w+)="([^"]*)"', told)) for row, told in rows if row in [name + e for e in endings]]
        assert found, name
        for key in ("le", "reason", "source", "finished_reason", "sleep_state"):
            values = list(dict.fromkeys(labels[key] for labels in found if key in labels))
            assert values == measured.get(key, []), (name, key)
        labels = {label for one in found for label in one} - {"le"}
        if name == "vllm:cache_config_info":
            assert labels <= set(measured["labels"])
            continue
        assert sorted(labels) == measured["labels"], name


def test_http_requests_are_counted_as_vllm_counts_them(start: Callable[..., Fake]) -> None:
    fake = start()
    fake.complete()
    fake.get("/nowhere")
    page = fake.call("GET", "/metrics")[1]
    assert 'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 1.0' in page
    assert 'handler="none"' in page
    assert "/health" not in page


@pytest.mark.parametrize("streamed", [False, True])
def test_client_that_leaves_frees_its_slot(start: Callable[..., Fake], streamed: bool) -> None:
    fake = start(**{"max-num-seqs": 1})
    first = fake.post(4000, stream=streamed)
    await_that(lambda: fake.busy() == (1, 0), "the request runs")
    second = fake.post(4000, stream=streamed)
    await_that(lambda: fake.busy() == (1, 1), "the next one waits")
    second.close()
    await_that(lambda: fake.busy() == (1, 0), "who leaves the queue is forgotten")
    first.close()
    await_that(lambda: fake.busy() == (0, 0), "who leaves the engine is forgotten")
    assert fake.metric('vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"}') == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([1, 2], 400),
        ("text", 400),
        ({"prompt": 5}, 400),
        ({"prompt": "x", "max_tokens": 0}, 400),
        ({"prompt": "x"}, 200),
    ]
    + [({"prompt": "x", "model": "no"}, 404), ({"prompt": "x" * 5000}, 400), ({"prompt": [1, 2]}, 200)],
)
def test_odd_bodies_are_answered(start: Callable[..., Fake], body: Any, status: int) -> None:
    assert start().call("POST", "/v1/completions", body)[0] == status


def test_bodies_in_chunks_and_broken_requests(start: Callable[..., Fake]) -> None:
    fake = start()
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", fake.port), 5) as client:
        client.sendall(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", fake.port), 5) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_answers_end_by_themselves_unless_told_to_ignore_that(start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_EOS_TOKENS": "3"})

    def ended(**options: Any) -> tuple[str, int]:
        told = json.loads(fake.complete(8, **options)[1])
        return told["choices"][0]["finish_reason"], told["usage"]["completion_tokens"]

    assert ended() == ("length", 8)
    assert ended(ignore_eos=False) == ("stop", 3)
    assert ended(ignore_eos=False, min_tokens=6) == ("stop", 6)


def test_stream_interval_joins_tokens_but_usage_counts_them(start: Callable[..., Fake]) -> None:
    fake = start(**{"stream-interval": 10})
    text = fake.complete(25, stream=True, stream_options={"include_usage": True})[1]
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert [len(event["choices"][0]["text"]) for event in events[:-1]] == [1, 10, 10, 4]
    assert events[-1]["usage"]["completion_tokens"] == 25


def test_urgent_requests_pass_the_queue_with_the_priority_policy(start: Callable[..., Fake]) -> None:
    fake = start(**{"max-num-seqs": 1, "scheduling-policy": "priority"})
    waiting = [fake.post(tokens) for tokens in (100, 300)]
    await_that(lambda: fake.busy() == (1, 1), "one runs and one waits")
    assert fake.complete(1, priority=-1)[0] == 200
    assert fake.busy() == (1, 0), "the one that came later is done, the other has only begun"
    for connection in waiting:
        connection.close()


def test_full_kv_cache_preempts_and_everything_still_ends(start: Callable[..., Fake]) -> None:
    fake = start(**{"kv-cache-memory-bytes": 512 * 120})
    connections = [fake.post(60) for _turn in range(4)]
    for connection in connections:
        assert json.loads(connection.getresponse().read())["usage"]["completion_tokens"] == 60
    assert fake.metric('vllm:num_preemptions_total{engine="0",model_name="m"}') > 0


@pytest.mark.parametrize("kind", ["freeze_engine", "freeze_worker"])
def test_freezing_can_be_switched(start: Callable[..., Fake], kind: str) -> None:
    fake = start()
    fake.fault(kind)
    connection = fake.post(1)
    await_that(lambda: fake.busy() == (1, 0), "the request hangs")
    steps = fake.metric('vllm:iteration_tokens_total_count{engine="0",model_name="m"}')
    time.sleep(0.3)
    assert fake.metric('vllm:iteration_tokens_total_count{engine="0",model_name="m"}') == steps
    fake.fault("none")
    assert connection.getresponse().status == 200


@pytest.mark.parametrize("kind", ["die", "die_worker"])
def test_dying_can_be_switched(start: Callable[..., Fake], kind: str) -> None:
    fake = start()
    stream = fake.stream(2000)
    fake.fault(kind)
    assert '"error"' in stream.read().decode()


def test_memory_of_process_and_kv_cache_can_leak(start: Callable[..., Fake]) -> None:
    fake = start()
    before = fake.metric("process_resident_memory_bytes")
    fake.fault("leak", mib=50)
    assert fake.metric("process_resident_memory_bytes") - before > 40 << 20
    fake.fault("kv_leak", share=0.7)
    assert fake.metric('vllm:kv_cache_usage_perc{engine="0",model_name="m"}') == pytest.approx(0.7, abs=0.01)


def test_unknown_fault_is_refused_with_those_that_exist(start: Callable[..., Fake]) -> None:
    status, text = start().call("POST", "/fake/fault", {"kind": "earthquake"})
    assert status == 400
    assert "freeze_engine" in text


def test_sigkill_of_the_server_leaves_engine_and_worker(start: Callable[..., Fake]) -> None:
    fake = start()
    children = fake.children()
    fake.process.kill()
    fake.process.wait(5)
    time.sleep(0.3)
    try:
        assert set(children) == {"VLLM::EngineCor", "VLLM::Worker"}
        assert all(pathlib.Path(f"/proc/{pid}/comm").exists() for pid in children.values())
    finally:
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)


def test_clean_end_leaves_no_process(start: Callable[..., Fake]) -> None:
    fake = start()
    children = fake.children()
    fake.process.terminate()
    assert fake.process.wait(AWAIT_SECONDS) == 0

    def gone(pid: int) -> bool:
        stat = pathlib.Path(f"/proc/{pid}/stat")
        return not stat.exists() or ") Z " in stat.read_text()

    await_that(lambda: all(gone(pid) for pid in children.values()), "engine and worker end")


def test_port_in_use_ends_with_exit_status_1(start: Callable[..., Fake], site: pathlib.Path) -> None:
    first = start()
    second = Fake(site, "taken", {}, port=first.port)
    assert second.process.wait(AWAIT_SECONDS) == 1
    second.kill()


def test_start_refuses_connections_until_the_model_is_loaded(site: pathlib.Path) -> None:
    fake = Fake(site, "slow-start", {"FAKE_VLLM_START_SECONDS": "1.5"})
    try:
        await_that(fake.children, "it starts")
        with pytest.raises(ConnectionRefusedError):
            fake.get("/health")
        await_that(lambda: fake.get("/health") == 200, "it serves")
    finally:
        fake.kill()


def test_serves_hundreds_of_streams_at_once(start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_ITL_MS": "100"}, **{"max-num-seqs": 1024})
    connections = [fake.post(5, stream=True) for _turn in range(400)]
    assert all(connection.getresponse().read().endswith(b"[DONE]\n\n") for connection in connections)
    with contextlib.suppress(http.client.HTTPException):
        assert fake.busy() == (0, 0)


def test_stalled_engine_stands_still_and_goes_on_by_itself(start: Callable[..., Fake]) -> None:
    fake = start()
    fake.fault("stall", seconds=1.2)
    time.sleep(0.2)
    connection, begin = fake.post(1), time.monotonic()
    await_that(lambda: fake.busy() == (1, 0), "the request hangs")
    assert [fake.get(path) for path in ("/health", "/metrics")] == [200] * 2
    assert connection.getresponse().status == 200
    assert 0.7 < time.monotonic() - begin < 5


def test_stalled_server_answers_nothing_and_goes_on_by_itself(start: Callable[..., Fake]) -> None:
    fake = start()
    fake.fault("stall_server", seconds=1.2)
    time.sleep(0.3)
    begin = time.monotonic()
    assert fake.get("/health") == 200
    assert 0.5 < time.monotonic() - begin < 5
    assert fake.complete(1)[0] == 200


@pytest.mark.parametrize("kind", ["stall", "stall_server"])
def test_stalls_repeat_until_their_time_is_over(start: Callable[..., Fake], kind: str) -> None:
    fake = start()
    fake.fault(kind, seconds=0.3, every=0.7, **{"for": 3})
    slow, begin = 0, time.monotonic()
    while time.monotonic() - begin < 4.5:
        asked = time.monotonic()
        assert fake.complete(1)[0] == 200
        slow += time.monotonic() - asked > 0.15
    assert 2 <= slow <= 7
    quick = time.monotonic()
    assert [fake.complete(1)[0] for _turn in range(10)] == [200] * 10
    assert time.monotonic() - quick < 2


def test_stalls_that_would_overlap_are_refused(start: Callable[..., Fake]) -> None:
    status, text = start().call("POST", "/fake/fault", {"kind": "stall", "seconds": 3, "every": 2})
    assert (status, "more than seconds" in text) == (400, True)


def raw(fake: Fake, path: str, limit: float) -> bytes:
    """What comes within so many seconds, whatever it is."""
    found = b""
    with socket.create_connection(("127.0.0.1", fake.port), 5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.settimeout(limit)
        until = time.monotonic() + limit
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < until and (piece := client.recv(1 << 16)):
                found += piece
    return found


@pytest.mark.parametrize("path", ["/metrics", "/health", "/v1/completions"])
def test_hostile_answers(start: Callable[..., Fake], path: str) -> None:
    fake = start()
    fake.fault("huge_headers")
    assert 1000000 < len(raw(fake, path, 5).partition(b"\r\n\r\n")[0]) < 1100000
    fake.fault("endless_body")
    assert len(raw(fake, path, 0.6)) > 100000
    fake.fault("bad_chunks")
    assert b"zz\r\n" in raw(fake, path, 5)
    fake.fault("slow_body")
    head, _sep, body = raw(fake, path, 0.6).partition(b"\r\n\r\n")
    assert (b"content-length: 1000" in head, body) == (True, b" ")
    fake.fault("none")
    assert fake.get("/health") == 200


def test_endless_body_ends_with_its_client(start: Callable[..., Fake]) -> None:
    fake = start()
    before = fake.metric("process_open_fds")
    fake.fault("endless_body")
    raw(fake, "/metrics", 0.3)
    fake.fault("none")
    await_that(lambda: fake.metric("process_open_fds") <= before, "the connection is closed")


def test_slow_can_have_other_slots(start: Callable[..., Fake]) -> None:
    fake = start(**{"max-num-seqs": 1})
    fake.fault("slow", itl_factor=2, slots=3)
    connections = [fake.post(500) for _turn in range(4)]
    await_that(lambda: fake.busy() == (3, 1), "three run")
    fake.fault("none")
    for connection in connections[:3]:
        connection.close()
    await_that(lambda: fake.busy() == (1, 0), "the last one runs")
    connections[3].close()


def test_histograms_tell_the_slowness_that_clients_see(start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_TTFT_MS": "20"})
    fake.fault("slow", ttft_factor=30)
    begin = time.monotonic()
    assert fake.complete(1)[0] == 200
    seen = time.monotonic() - begin
    labels = '{engine="0",model_name="m"}'
    assert fake.metric(f"vllm:time_to_first_token_seconds_count{labels}") == 1
    told = fake.metric(f"vllm:time_to_first_token_seconds_sum{labels}")
    assert 0.6 <= told <= seen
    assert seen - told < 0.2


def test_histograms_tell_the_time_in_the_queue(start: Callable[..., Fake]) -> None:
    fake = start(**{"max-num-seqs": 1})
    first, second = fake.post(60), fake.post(1)
    assert [connection.getresponse().status for connection in (first, second)] == [200, 200]
    labels = '{engine="0",model_name="m"}'
    assert fake.metric(f"vllm:request_queue_time_seconds_count{labels}") == 2
    assert fake.metric(f"vllm:request_queue_time_seconds_sum{labels}") > 0.4
    assert fake.metric(f"vllm:time_to_first_token_seconds_sum{labels}") > 0.4
