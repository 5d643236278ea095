"""Models from peers: served for a while to who knows the token, known by a digest, and never needed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import fetch as model_fetch
from ansible_collections.llmops.vllm.plugins.module_utils._model import peers as model_peers
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._model.store import Request

from tests.fakes.mirror import FakeMirror
from tools import tiny_model

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_fetch, "PAUSE_S", 0.001)


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    return tiny_model.write(tmp_path / "source", "a")


@pytest.fixture
def holder(tmp_path: pathlib.Path, source: pathlib.Path) -> dict[str, Any]:
    """Options of a host that has the model."""
    options = {"name": "tiny", "revision": "r1", "source": f"file://{source}", "root": str(tmp_path / "holder")}
    model_store.present(Request(**options))
    return options


@pytest.fixture
def serve(run_module: Callable[..., Any], holder: dict[str, Any]) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that serves the holder's model; what it started is ended with the test."""
    started = []

    def begin(**options: Any) -> dict[str, Any]:
        wish = {"root": holder["root"], "models": [{"name": "tiny", "revision": "r1"}], "address": "127.0.0.1"}
        result: dict[str, Any] = run_module("llm_model_peer", {**wish, **options})
        assert "url" in result, result
        started.append(result["pid"])
        return result

    yield begin
    for pid in started:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, 9)
            os.waitpid(pid, 0)


@pytest.fixture
def taker(tmp_path: pathlib.Path, holder: dict[str, Any]) -> dict[str, Any]:
    """Options of a host without the model, whose source is not there."""
    return {**holder, "root": str(tmp_path / "taker"), "source": "controller:///srv/tiny"}


def offered(*served: dict[str, Any]) -> dict[str, Any]:
    peers = [{"url": one["url"], "token": one["token"]} for one in served]
    return {"peers": peers, "peers_sums": served[0]["models"][0]["sums_sha256"]}


def asked(served: dict[str, Any], path: str, token: str | None = None) -> int:
    request = urllib.request.Request(served["url"] + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
        time.sleep(0.02)
    return False


def test_model_is_taken_from_a_peer_and_the_source_is_not_asked(
    run_module: Callable[..., Any], serve: Callable[..., Any], taker: dict[str, Any], holder: dict[str, Any]
) -> None:
    options = {**taker, **offered(serve())}
    assert run_module("llm_model", options, check=True)["changed"]
    assert not pathlib.Path(taker["root"]).exists()
    result = run_module("llm_model", options)
    assert (result["changed"], result["peer"]) == (True, True)
    model_store.verify(Request(**dict(taker, verify="sha256")))
    ours, theirs = Request(**taker).path, Request(**holder).path
    assert (ours / "SHA256SUMS").read_bytes() == (theirs / "SHA256SUMS").read_bytes()
    assert not run_module("llm_model", options)["changed"]


def test_only_listed_files_and_only_with_the_token(serve: Callable[..., Any], holder: dict[str, Any]) -> None:
    served = serve()
    (Request(**holder).path / "later.txt").touch()
    token = served["token"]
    assert asked(served, "/tiny/r1/config.json", token) == 200
    refused = ["/tiny/r1/later.txt", "/tiny/r1/../../../etc/passwd", "/tiny/r2/config.json", "/", "/stop"]
    assert [asked(served, path, token) for path in refused] == [404] * len(refused)
    assert [asked(served, "/tiny/r1/config.json", wrong) for wrong in (None, "", token[:-1])] == [404] * 3


def test_end_by_command_needs_the_token_and_happens_once(
    run_module: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    served = serve()
    stop = {"state": "stopped", "url": served["url"], "token": served["token"]}
    assert "the token is wrong" in run_module("llm_model_peer", dict(stop, token="x" * 40))["msg"]
    assert run_module("llm_model_peer", stop, check=True)["changed"]
    assert asked(served, "/tiny/r1/config.json", served["token"]) == 200
    assert run_module("llm_model_peer", stop)["changed"]
    assert ended(served["pid"])
    assert not run_module("llm_model_peer", stop)["changed"]


@pytest.mark.parametrize("limit", [{"idle": 0.3}, {"timeout": 0.3}])
def test_end_by_itself(serve: Callable[..., Any], limit: dict[str, float]) -> None:
    assert ended(serve(**limit)["pid"])


def test_check_mode_serves_nothing(run_module: Callable[..., Any], holder: dict[str, Any]) -> None:
    wish = {"root": holder["root"], "models": [{"name": "tiny", "revision": "r1"}], "address": "127.0.0.1"}
    result = run_module("llm_model_peer", wish, check=True)
    assert result["changed"]
    assert "url" not in result


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": [{"name": "tiny", "revision": "r9"}]}, ["r9", "not staged here"]),
        ({"models": [{"name": "../x", "revision": "r1"}]}, ["'../x'"]),
        ({"address": "192.0.2.77"}, ["192.0.2.77", "llm_model_peer_address"]),
    ],
)
def test_what_cannot_be_served(
    run_module: Callable[..., Any], holder: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    wish = {"root": holder["root"], "models": [{"name": "tiny", "revision": "r1"}], "address": "127.0.0.1"}
    result = run_module("llm_model_peer", {**wish, **change})
    assert result.failed
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]


def test_peer_that_is_gone_is_passed_over(
    run_module: Callable[..., Any], serve: Callable[..., Any], taker: dict[str, Any]
) -> None:
    gone, there = serve(), serve()
    run_module("llm_model_peer", {"state": "stopped", "url": gone["url"], "token": gone["token"]})
    assert ended(gone["pid"])
    assert run_module("llm_model", {**taker, **offered(gone, there)})["peer"]


def test_source_is_asked_when_no_peer_can(
    run_module: Callable[..., Any],
    serve: Callable[..., Any],
    taker: dict[str, Any],
    source: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer whose files are not those that were announced counts as none."""
    warnings: list[str] = []
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.warn", lambda self, text: warnings.append(text))
    served = serve()
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    with FakeMirror(files) as mirror:
        options = {**taker, "source": mirror.address, **offered(served), "peers_sums": "0" * 64}
        result = run_module("llm_model", options)
    assert result["changed"], result
    assert "peer" not in result
    assert [text for text in warnings if "not the one that was announced" in text]
    model_store.verify(Request(**dict(taker, verify="sha256")))


def test_altered_file_of_a_peer_is_refused(
    run_module: Callable[..., Any], serve: Callable[..., Any], taker: dict[str, Any], holder: dict[str, Any]
) -> None:
    weights = Request(**holder).path / WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    result = run_module("llm_model", {**taker, **offered(serve())})
    assert "transfer" in result  # its source, the controller, is asked
    assert not Request(**taker).path.exists()


def test_bandwidth_is_that_of_all_peers_together(
    run_module: Callable[..., Any], serve: Callable[..., Any], taker: dict[str, Any], source: pathlib.Path
) -> None:
    size = sum(path.stat().st_size for path in source.iterdir())
    began = time.monotonic()
    assert run_module("llm_model", {**taker, **offered(serve(bandwidth_bytes_per_second=size))})["peer"]
    assert time.monotonic() - began > 0.7


def test_digest_of_peers_is_needed(run_module: Callable[..., Any], taker: dict[str, Any]) -> None:
    result = run_module("llm_model", dict(taker, peers=[{"url": "http://127.0.0.1:1", "token": "x" * 40}]))
    assert "peers_sums is ''" in result["msg"]


ABSENT: dict[str, Any] = {"files": []}
THERE = {"files": ["config.json"], "sums_sha256": "5" * 64}
HUB = {"name": "llama", "revision": "c" * 40, "source": "hf://example/llama"}


def hosts(**missing: bool | None) -> dict[str, Any]:
    """Variables of hosts, as the role registers them; None: the host was not asked."""
    return {
        host: {} if is_missing is None else {
            "__llm_model_looked": {"results": [{**(ABSENT if is_missing else THERE), "__llm_model_entry": HUB}]}
        }
        for host, is_missing in missing.items()
    }  # fmt: skip


def planned(found: dict[str, Any], host: str, **options: Any) -> list[Any]:
    told = model_peers.plan(found, list(found), host, **options)
    return [len(told["bring"]), len(told["serve"]), [name for entry in told["take"] for name in entry["from"]]]


def test_first_host_brings_it_and_the_others_take_it() -> None:
    found = hosts(a=True, b=True, c=True)
    assert [planned(found, host) for host in "abc"] == [[1, 1, []], [0, 0, ["a"]], [0, 0, ["a"]]]


def test_holders_serve_and_takers_spread_over_them() -> None:
    found = hosts(a=False, b=True, c=False, d=True)
    assert planned(found, "a") == planned(found, "c") == [0, 1, []]
    assert [planned(found, host) for host in "bd"] == [[0, 0, ["a", "c"]], [0, 0, ["c", "a"]]]


@pytest.mark.parametrize(
    ("missing", "host", "expected"),
    [
        ({"a": False, "b": False}, "a", [0, 0, []]),  # a second run
        ({"a": True}, "a", [1, 0, []]),
        ({"a": None, "b": True, "c": True}, "b", [1, 1, []]),
        ({"a": None, "b": True}, "a", [0, 0, []]),
    ],
)
def test_nothing_is_served_to_nobody(missing: dict[str, bool | None], host: str, expected: list[Any]) -> None:
    assert planned(hosts(**missing), host) == expected


def test_each_brings_its_own_when_nothing_is_shared() -> None:
    found = hosts(a=False, b=True)
    assert planned(found, "b", share=False) == [1, 0, []]
    for host in found.values():
        host["__llm_model_looked"]["results"][0]["__llm_model_entry"] = {**HUB, "source": "file:///mnt/llama"}
    assert planned(found, "b") == [1, 0, []]


def test_revision_without_sums_is_neither_missing_nor_served() -> None:
    found = hosts(a=False, b=True)
    found["a"]["__llm_model_looked"]["results"][0]["sums_sha256"] = None
    assert [planned(found, host) for host in "ab"] == [[0, 0, []], [1, 0, []]]


def test_offers_are_those_of_one_content() -> None:
    def served(url: str, sums: str) -> dict[str, Any]:
        models = [{"name": "llama", "revision": "c" * 40, "sums_sha256": sums}, {"name": "x", "revision": "y"}]
        return {"__llm_model_served": {"url": url, "token": f"token of {url}", "models": models}}

    found = {"a": {"__llm_model_served": {"msg": "port taken", "models": []}}, "b": served("b", "1"),
             "c": served("c", "2"), "d": served("d", "1"), "e": {}}  # fmt: skip
    told = model_peers.offers(found, {**HUB, "from": list("abcde")})
    assert ([peer["url"] for peer in told["peers"]], told["sums"]) == (["b", "d"], "1")
    assert model_peers.offers(found, HUB) == {"peers": [], "sums": ""}
