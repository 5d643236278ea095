"""NGINX with lb.lua and the role's configuration: real workers, real replicas, real failures."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.vllm.running import await_that
from tests.unit.agent import nginx_lab
from tests.unit.agent.nginx_lab import KEY, Lab, read_all

pytestmark = [nginx_lab.needs_nginx, nginx_lab.needs_lua]


@pytest.fixture
def start() -> Iterator[Callable[..., Lab]]:
    """Give a function that starts NGINX with replicas of these names and a view of them."""
    with contextlib.ExitStack() as stack:

        def begin(names: str, view: dict[str, Any] | None = None, **settings: Any) -> Lab:
            lab = stack.enter_context(nginx_lab.lab("lua", **settings))
            for name in names:
                lab.replicas.start(name)
            lab.start()
            lab.put(**(view or {}))
            return lab

        yield begin


def modes(lab: Lab, **changes: str) -> None:
    for name, mode in changes.items():
        lab.replicas.all[name].mode = mode


def requests(lab: Lab) -> dict[str, int]:
    return {name: replica.requests for name, replica in lab.replicas.all.items()}


def streams(lab: Lab, count: int) -> list[socket.socket]:
    for replica in lab.replicas.all.values():
        replica.mode = "slow"
    return [lab.stream() for _turn in range(count)]


def open_streams(lab: Lab) -> dict[str, int]:
    return {name: replica.open for name, replica in lab.replicas.all.items() if replica.open}


# Choice


def test_requests_go_where_the_fewest_are_in_flight(start: Callable[..., Lab]) -> None:
    lab = start("abc")
    lines = streams(lab, 9)
    assert lab.inflight() == {"a": 3, "b": 3, "c": 3}
    lab.put({"c": {"state": "drain"}})
    lines += [lab.stream() for _turn in range(4)]
    assert lab.inflight() == {"a": 5, "b": 5, "c": 3}
    lab.put({"c": {"state": "up"}})
    lines += [lab.stream() for _turn in range(2)]
    assert lab.inflight() == {"a": 5, "b": 5, "c": 5}
    lab.replicas.finish()
    assert all(b"[DONE]" in read_all(line) for line in lines)
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")


def test_a_lighter_replica_gets_fewer(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    lab.put({"b": {"weight": 0.25}})
    lines = streams(lab, 10)
    assert lab.inflight() == {"a": 8, "b": 2}
    for line in lines:
        line.close()


def test_idle_replicas_share_alike(start: Callable[..., Lab]) -> None:
    found = start("abcd").spread(200)
    assert sorted(found) == list("abcd")
    assert min(found.values()) > 25


def test_a_request_stays_in_its_pool(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    lab.replicas.start("z", "other")
    lab.put()
    assert set(lab.spread(20)) == {"a", "b"}
    assert set(lab.spread(5, key=KEY + "-other")) == {"z"}
    modes(lab, z="reset")
    assert lab.spread(1, key=KEY + "-other") == {"502": 1}
    lab.put({"z": {"state": "drain"}})
    assert lab.spread(1, key=KEY + "-other") == {"503": 1}
    assert set(lab.spread(20)) == {"a", "b"}


@pytest.mark.parametrize("state", ["drain", "down"])
def test_out_of_rotation_means_no_new_request_and_no_lost_one(start: Callable[..., Lab], state: str) -> None:
    lab = start("ab")
    connection = nginx_lab.http.client.HTTPConnection("127.0.0.1", lab.port, timeout=15)
    seen = []
    for turn in range(40):
        if turn % 4 == 0:
            lab.put({"a": {"state": state if turn % 8 == 0 else "up"}})
        connection.request("POST", "/v1/completions", "{}", {"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        seen.append((turn % 8 < 4, answer.status, json.loads(answer.read())["from"]))
    connection.close()
    assert {status for _out, status, _name in seen} == {200}
    assert {name for out, _status, name in seen if out} == {"b"}
    assert {name for out, _status, name in seen if not out} == {"a", "b"}
    await_that(lambda: lab.log()[-1]["nth_on_conn"] == 40, "all came on one connection")


def test_when_none_is_up_those_that_are_down_are_tried_but_never_a_drained_one(start: Callable[..., Lab]) -> None:
    lab = start("abc")
    lab.put({"a": {"state": "down"}, "b": {"state": "down"}, "c": {"state": "drain"}})
    assert set(lab.spread(20)) == {"a", "b"}
    lab.put({"a": {"state": "drain"}, "b": {"state": "drain"}})
    status, headers, text = lab.ask()
    assert (status, headers["Retry-After"]) == (503, "2")
    assert json.loads(text)["error"]["code"] == "no_replica_available"


def test_a_replica_that_returns_grows_to_its_share(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    lab.put({"b": {"since": time.time()}}, slow_start=1000)
    lines = streams(lab, 9)  # a tenth would find both alike
    assert lab.inflight() == {"a": 9}
    lab.put({"b": {"since": time.time() - 500}}, slow_start=1000)  # by now at 0.55 of its share
    lines += [lab.stream() for _turn in range(20)]
    assert 9 <= lab.inflight()["b"] <= 11
    for line in lines:
        line.close()


def test_replicas_that_are_all_new_share_alike(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    now = time.time()
    lab.put({"a": {"since": now}, "b": {"since": now}}, slow_start=1000)
    lines = streams(lab, 10)
    assert lab.inflight() == {"a": 5, "b": 5}
    for line in lines:
        line.close()


# Second tries


@pytest.mark.parametrize("mode", ["reset", "broken"])
def test_a_failure_before_the_first_byte_is_tried_once_more_elsewhere(start: Callable[..., Lab], mode: str) -> None:
    lab = start("abc")
    modes(lab, a=mode)
    assert set(lab.spread(30)) == {"b", "c"}
    assert lab.ledger()["peers"]["a"]["failed"] >= 1


def test_an_answer_whose_head_is_no_head_is_tried_once_more_elsewhere(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    lab.replicas.all["a"].answer = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000 + b"\r\n\r\n"
    modes(lab, a="raw")
    assert lab.spread(10) == {"b": 10}
    assert lab.ledger()["peers"]["a"]["failed"] >= 1


def test_a_dead_replica_costs_nobody_an_answer(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    lab.replicas.run(lab.replicas.close("a"))
    assert lab.spread(30) == {"b": 30}


def test_a_second_try_does_not_go_where_the_last_answer_was_a_failure(start: Callable[..., Lab]) -> None:
    lab = start("abc")
    modes(lab, a="reset", b="reset")
    while not all(lab.ledger()["peers"][name]["failed"] for name in "ab"):
        lab.ask()  # which costs whoever meets both of them an answer
    modes(lab, c="slow")
    lines = [lab.stream() for _turn in range(12)]  # all end up on c; a and b are known, and idle
    assert lab.inflight() == {"c": 12}
    modes(lab, c="ok")
    for _turn in range(3):
        time.sleep(1.1)  # nobody is suspected any more: the first try goes to an idle one again
        assert lab.ask()[0] == 200
    for line in lines:
        line.close()


def test_a_request_that_kills_is_offered_to_two_replicas_at_most(start: Callable[..., Lab]) -> None:
    lab = start("abcd")
    modes(lab, a="reset", b="reset", c="reset", d="reset")
    status, headers, text = lab.ask()
    assert (status, headers["Retry-After"]) == (502, "2")
    assert json.loads(text)["error"]["code"] == "no_replica_answered"
    assert sum(requests(lab).values()) == 2
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")


def test_a_stream_that_began_is_not_tried_again(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    modes(lab, a="cut", b="cut")
    text = read_all(lab.stream())
    assert b'"token": 1' in text or text == b""
    assert sum(requests(lab).values()) == 1
    await_that(lambda: lab.log() and lab.log()[-1]["status"] == 200, "the row is written")
    assert lab.log()[-1]["end"] == ""
    await_that(lambda: sum(peer["failed"] for peer in lab.ledger()["peers"].values()) == 1, "the failure is counted")


def test_a_full_queue_is_passed_on_with_its_own_retry_after(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    modes(lab, a="busy", b="busy")
    status, headers, text = lab.ask()
    assert (status, headers["Retry-After"], set(json.loads(text))) == (503, "7", {"from"})
    assert sum(requests(lab).values()) == 1
    peers = lab.ledger()["peers"].values()
    assert [(peer["good"], peer["failed"], peer["failed_in_row"]) for peer in peers] == [(0, 0, 0)] * 2


def test_the_last_replica_s_own_error_is_passed_on(start: Callable[..., Lab]) -> None:
    lab = start("a")
    modes(lab, a="broken")
    status, _headers, text = lab.ask()
    assert (status, json.loads(text)) == (500, {"from": "a"})
    assert requests(lab) == {"a": 1}


def test_second_tries_stop_with_the_budget(start: Callable[..., Lab]) -> None:
    lab = start("ab", {"retry_percent": 10, "retry_burst": 3})
    modes(lab, a="reset", b="reset")
    assert lab.spread(20) == {"502": 20}
    # three at once, and one for each ten requests
    assert 24 <= sum(requests(lab).values()) <= 25


def test_the_budgets_of_pools_are_their_own(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    for name in "yz":
        lab.replicas.start(name, "other")
    lab.put(retry_percent=0, retry_burst=2)
    modes(lab, a="reset", b="reset", y="reset")
    lab.spread(5)
    assert lab.spread(2, key=KEY + "-other") == {"z": 2}


def test_a_failed_replica_is_spared_for_a_second(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    modes(lab, a="reset")
    await_that(lambda: lab.spread(1) and lab.replicas.all["a"].requests, "one request met the broken replica")
    modes(lab, a="ok")
    assert lab.spread(20) == {"b": 20}
    await_that(lambda: "a" in lab.spread(5), "it is chosen again")


def test_a_spared_replica_is_better_than_none(start: Callable[..., Lab]) -> None:
    lab = start("a")
    modes(lab, a="reset")
    assert lab.spread(1) == {"502": 1}
    modes(lab, a="ok")
    assert lab.spread(3) == {"a": 3}


def test_counts_tell_good_from_failed_and_how_often_in_a_row(start: Callable[..., Lab]) -> None:
    lab = start("a")
    modes(lab, a="broken")
    lab.spread(3)
    counts = {"id": "a", "inflight": 0, "good": 0, "failed": 3, "failed_in_row": 3}
    await_that(lambda: lab.ledger()["peers"]["a"] == counts, "three failures are counted")
    modes(lab, a="ok")
    lab.spread(2)
    counts |= {"good": 2, "failed_in_row": 0}
    await_that(lambda: lab.ledger()["peers"]["a"] == counts, "two good answers are counted")


@pytest.mark.parametrize(
    ("answer", "status", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: /v1/models\r\nContent-Length: 2\r\n\r\n{}", 200, "eof"),
        (b"HTTP/1.1 200 OK\r\nX-Accel-Limit-Rate: 1\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, 200, "eof"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000 + b"\r\n\r\n", 502, ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", 200, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", 200, ""),
        (b"\x00\xff nonsense \r\n\r\n", 9, "eof"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\ndata: {"error": {"code": 503}}\n\n', 200, "error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\ndata: {}\n\ndata: [DONE]", 200, "done"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"x":"data: [DONE]', 200, "eof"),
    ],
)
def test_strange_answers_break_nothing(start: Callable[..., Lab], answer: bytes, status: int, end: str) -> None:
    lab = start("a")
    lab.replicas.all["a"].answer = answer
    modes(lab, a="raw")
    with lab.request("Connection: close") as line, contextlib.suppress(ConnectionError):
        while line.recv(65536):  # to the end, whatever it is
            pass
    row = await_that(lambda: lab.log() and lab.log()[-1], "the row is written")
    assert (row["status"], row["end"]) == (status, end)
    # NGINX says of malformed chunks what it says of a client that left: nobody's failure
    failed = (status != 200 or end == "") and b"zz" not in answer
    await_that(lambda: lab.ledger()["peers"]["a"]["failed"] == failed, "the failure is counted")
    modes(lab, a="ok")
    assert lab.spread(3) == {"a": 3}
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")
    assert len(lab.serving()) == nginx_lab.WORKERS


# The ledger


def test_aborted_streams_leave_no_count(start: Callable[..., Lab]) -> None:
    lab = start("abcd")
    for _turn in range(5):
        lines = streams(lab, 100)
        assert sum(lab.inflight().values()) >= 100
        for line in lines:
            line.close()
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")
    await_that(lambda: open_streams(lab) == {}, "the replicas are idle")
    peers = lab.ledger()["peers"].values()
    assert {(peer["good"], peer["failed"]) for peer in peers} == {(0, 0)}


def test_failures_leave_no_count(start: Callable[..., Lab]) -> None:
    lab = start("abc")
    for mode in ("reset", "broken", "busy", "cut"):
        modes(lab, a=mode, b=mode, c=mode)
        for _turn in range(20):
            with contextlib.suppress(nginx_lab.http.client.HTTPException, ConnectionError):
                lab.ask()
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")


def test_a_killed_worker_s_requests_are_forgotten_within_two_seconds(start: Callable[..., Lab]) -> None:
    lab = start("abc")
    lines = streams(lab, 60)
    victim = max(lab.serving(), key=lambda pid: len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())))
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    await_that(lambda: sum(open_streams(lab).values()) < 60, "the replicas notice")
    await_that(lambda: lab.inflight() == open_streams(lab), "the counts are the replicas' own")
    assert time.monotonic() - killed < 2.5
    lines += [lab.stream() for _turn in range(9)]
    assert lab.inflight() == open_streams(lab)
    lab.replicas.finish()
    for line in lines:
        with contextlib.suppress(ConnectionError):
            read_all(line)
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")
    found = lab.ledger()
    assert (found["rows"], found["reaped"]) == (nginx_lab.WORKERS, 1)


def test_after_kills_the_choice_is_level_again(start: Callable[..., Lab]) -> None:
    """The sums by which a replica is chosen are mended like the ledger itself."""
    lab = start("ab")
    lines = streams(lab, 40)
    for victim in lab.serving():
        os.kill(victim, signal.SIGKILL)
    await_that(lambda: lab.ledger()["reaped"] == nginx_lab.WORKERS, "the rows are gone")
    await_that(lambda: open_streams(lab) == {}, "the replicas are idle")
    lines += [lab.stream() for _turn in range(10)]
    assert lab.inflight() == {"a": 5, "b": 5}
    for line in lines:
        line.close()


def test_streams_go_on_and_stay_counted_through_a_reload(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    modes(lab, a="slow", b="slow")
    lab.put({"b": {"state": "drain"}})
    lines = [lab.stream() for _turn in range(10)]
    boot = lab.ledger()["boot"]
    lab.reload()
    assert lab.inflight() == {"a": 10}
    lab.put({"b": {"state": "up"}})
    lines += [lab.stream() for _turn in range(10)]
    assert lab.inflight() == {"a": 10, "b": 10}
    assert lab.ledger()["boot"] == boot
    lab.replicas.finish()
    assert all(b"[DONE]" in read_all(line) for line in lines)
    await_that(lambda: lab.inflight() == {} and len(lab.workers()) == nginx_lab.WORKERS, "the old workers are gone")


def test_a_replica_that_left_the_view_is_counted_until_it_is_idle(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    lines = streams(lab, 4)
    peer = lab.peers.pop("b")
    text = lab.view().text()
    assert lab.send(text)[0] == 200
    assert lab.ledger()["gone"] == {"b": 2}
    lines.append(lab.stream())
    assert lab.inflight() == {"a": 3}
    lab.replicas.finish()
    for line in lines:
        read_all(line)
    await_that(lambda: lab.ledger()["gone"] == {"b": 0}, "it is idle")
    lab.send(lab.view(retry_burst=1).text())
    assert lab.ledger()["gone"] == {}
    lab.peers["b"] = peer
    assert lab.send(lab.view().text())[1]["peers"][1]["inflight"] == 0


# The admin socket and the start

GOOD = {
    "id": "0123456789ab",
    "version": 1,
    "slow_start": 10,
    "retry_percent": 20,
    "retry_burst": 20,
    "peers": [
        {"id": "h/r0", "pool": "p", "address": "::1", "port": 80, "state": "up", "weight": 1.0, "since": 0},
        {"id": "h/r1", "pool": "p", "address": "127.0.0.1", "port": 80, "state": "up", "weight": 1.0, "since": 0},
    ],
}


def changed(path: str, value: Any) -> str:
    """Return the good document with one thing changed; the text of it, as JSON has it."""
    document = json.loads(json.dumps(GOOD))
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place = document
    for step in way:
        place = place[step]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document)


def test_hostile_documents_are_refused_and_the_view_stays(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    before = lab.ledger()["view"]
    assert lab.send(json.dumps(GOOD))[0] == 200
    lab.put()
    hostile: list[tuple[str | bytes, str]] = [
        ("", "empty"),
        ("{", "the view is no object"),
        ("[]", "has no valid"),
        ("7", "the view is no object"),
        (b"\xff\x00\xfe", "the view is no object"),
        ("[" * 100000, "the view is no object"),
        (changed("id", "../../etc"), "the view has no valid id"),
        (changed("version", 2), "the view has no valid version"),
        (changed("slow_start", "10"), "the view has no valid slow_start"),
        (changed("slow_start", float("nan")), "the view is no object"),
        (changed("retry_burst", float("inf")), "the view is no object"),
        (changed("retry_percent", -1), "the view has no valid retry_percent"),
        (changed("retry_burst", 1.5), "the view has no valid retry_burst"),
        (changed("surprise", 1), "the view has an unknown field"),
        (changed("peers", {"a": 1}), "peer 1 is no element of a list"),
        (changed("peers", None), "the view has no valid peers"),
        (changed("peers.0", "x"), "peer 1 is no object"),
        (changed("peers.1.id", "h/r0"), "peer 2 has the id of an earlier one"),
        (changed("peers.1.id", "a b"), "peer 2 has no valid id"),
        (changed("peers.1.id", ""), "peer 2 has no valid id"),
        (changed("peers.1.pool", "-"), "peer 2 has no valid pool"),
        (changed("peers.1.state", "away"), "peer 2 has no valid state"),
        (changed("peers.1.port", 0), "peer 2 has no valid port"),
        (changed("peers.1.port", 65536), "peer 2 has no valid port"),
        (changed("peers.1.port", "80"), "peer 2 has no valid port"),
        (changed("peers.1.port", 80.5), "peer 2 has no valid port"),
        (changed("peers.1.address", "localhost"), "peer 2 has no valid address"),
        (changed("peers.1.address", "unix:/run/x"), "peer 2 has no valid address"),
        (changed("peers.1.address", "10.0.0.1 "), "peer 2 has no valid address"),
        (changed("peers.1.address", "10.0.0.1\x00"), "peer 2 has no valid address"),
        (changed("peers.1.address", "10.1"), "peer 2 has no valid address"),
        (changed("peers.1.address", "fe80::1%eth0"), "peer 2 has no valid address"),
        (changed("peers.1.weight", 0), "peer 2 has no valid weight"),
        (changed("peers.1.weight", 1.1), "peer 2 has no valid weight"),
        (changed("peers.1.since", KeyError), "peer 2 has no valid since"),
        (changed("peers.1.note", "x"), "peer 2 has an unknown field"),
        ("x" * 5000000, ""),
    ]
    for text, reason in hostile:
        try:
            status, found = lab.send(text)
        except (OSError, ValueError):  # more than NGINX reads at all
            assert not reason
            continue
        assert (status, reason in found["error"]) == (400, True), (text[:200], found)
    assert lab.ledger()["view"] == before
    assert set(lab.spread(10)) == {"a", "b"}


def test_other_methods_of_the_admin_socket_are_refused(start: Callable[..., Lab]) -> None:
    lab = start("a")
    assert lab._admin("DELETE") == (405, {"error": "only GET and PUT"})


def test_the_last_view_is_in_force_from_the_start_and_a_restart_forgets_counts(start: Callable[..., Lab]) -> None:
    lab = start("ab")
    streams(lab, 4)
    (lab.home / "state/view.json").write_text(lab.view().text())
    lab.kill()  # leaves the socket behind
    assert pathlib.Path(lab.admin).is_socket()
    unit = nginx_lab.render("nginx_unit.conf.j2")
    removal = re.search(r"ExecStartPre=-/bin/rm -f (\S+)", unit)
    assert removal and lab.admin.endswith(removal[1])
    pathlib.Path(lab.admin).unlink()
    lab.start()
    modes(lab, a="ok", b="ok")
    assert lab.health()["view"] == lab.view().id
    assert set(lab.spread(20)) == {"a", "b"}
    await_that(lambda: lab.inflight() == {}, "nothing is in flight")


@pytest.mark.parametrize("content", ["", "{", '{"peers": 7}', None])
def test_a_missing_or_broken_view_is_an_empty_one(start: Callable[..., Lab], content: str | None) -> None:
    with nginx_lab.lab("lua") as lab:
        if content is None:
            (lab.home / "state/view.json").mkdir()
        else:
            (lab.home / "state/view.json").write_text(content)
        lab.start()
        assert lab.health()["view"] == ""
        assert lab.ask()[0] == 503
        assert lab.ledger()["peers"] == {}
        assert "no view in" in lab.errors()


def test_readyz_follows_the_agent(start: Callable[..., Lab]) -> None:
    lab = start("a")
    assert nginx_lab.ask(lab.port, "GET", "/readyz")[0] == 200
    away = lab.home / "run/llm-agent/away"
    away.write_text("")
    assert nginx_lab.ask(lab.port, "GET", "/readyz")[::2] == (503, '{"status":"away"}\n')
    away.unlink()
    assert nginx_lab.ask(lab.port, "GET", "/readyz")[0] == 200
    assert lab.log() == []
