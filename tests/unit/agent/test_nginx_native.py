"""The driver of the native form: pure parts, and a real NGINX whose upstream groups the helper writes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import pwd
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import nginx_apply, nginx_host
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, Peer, View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_native import Limits, NginxNative
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_observed import Observations, tries

from tests.fakes.vllm.running import AWAIT_SECONDS
from tests.ports import free_port
from tests.unit.agent import nginx_lab
from tests.unit.agent.nginx_lab import KEY, Lab, read_all

QUICK = Limits(interval=0.4, look=0.02, settle=0.1)

# What NGINX's log tells


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"<190>Nov 25 06:42:41 nginx: LB|10.0.0.1:80|200|OK", [("10.0.0.1:80", True)]),
        (b"LB|[::1]:80|404|OK", [("[::1]:80", True)]),
        (b"LB|10.0.0.1:80, 10.0.0.2:80|502, 200|OK", [("10.0.0.1:80", False), ("10.0.0.2:80", True)]),
        (b"LB|10.0.0.1:80, 10.0.0.2:80|500, 504|OK", [("10.0.0.1:80", False), ("10.0.0.2:80", False)]),
        (b"LB|10.0.0.1:80|503|OK", []),
        (b"LB|10.0.0.1:80|200|", []),
        (b"LB|10.0.0.1:80, 10.0.0.2:80|502, 200|", [("10.0.0.1:80", False)]),
        (b"LB|10.0.0.1:80|499|OK", []),
        (b"LB|10.0.0.1:80|-|OK", []),
        (b"LB|10.0.0.1:80, x|502|OK", []),
        (b"LB|-|-|OK", []),
        (b"LB|", []),
        (b"\xff\x00", []),
        (b"", []),
    ],
)
def test_tries_are_read_from_a_datagram(line: bytes, expected: list[tuple[str, bool]]) -> None:
    assert tries(line) == expected


def test_counts_are_by_replica_and_those_of_others_are_forgotten() -> None:
    seen = Observations("unused")
    for line in (
        b"LB|10.0.0.1:80|502|OK",
        b"LB|10.0.0.1:80|500|OK",
        b"LB|10.0.0.2:80|500|OK",
        b"LB|10.0.0.2:80|200|OK",
    ):
        seen.take(line)
    places = {"a": "10.0.0.1:80", "b": "10.0.0.2:80", "c": "10.0.0.3:80"}
    assert seen.of(places) == {"a": Observed(0, 2, 2), "b": Observed(1, 1, 0), "c": Observed()}
    seen.of({"b": "10.0.0.2:80"})
    assert seen.of(places)["a"] == Observed()


# What /proc shows


def test_connections_are_those_of_one_user() -> None:
    for family, address, shown in ((socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "[::1]")):
        with socket.socket(family) as server, socket.socket(family) as one, socket.socket(family) as two:
            server.bind((address, 0))
            server.listen()
            place = f"{shown}:{server.getsockname()[1]}"
            one.connect(server.getsockname())
            two.connect(server.getsockname())
            assert nginx_host.connections(os.getuid())[place] == 2
            assert nginx_host.connections(os.getuid() + 12345)[place] == 0
            two.close()
            assert nginx_host.connections(os.getuid())[place] == 1


def test_generations_are_counted_by_processes_that_shut_down(tmp_path: pathlib.Path) -> None:
    old, current = b"nginx: worker process is shutting down\0", b"nginx: worker process\0"
    for number, title in enumerate([b"nginx: master process nginx\0", current, current, *[old] * 5, b""]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes(title)
    (tmp_path / "99").mkdir()  # ended meanwhile
    (tmp_path / "self").mkdir()
    assert nginx_host.old_generations(tmp_path) == 3


# The driver before a stand-in of the helper and of NGINX: a server of /lb-health that shows the last view written


class StandIn:
    """Shows views from the file after ``delay`` seconds, and remembers each."""

    def __init__(self, home: pathlib.Path) -> None:
        self.file, self.delay, self.shown, self.seen = home / "view.json", 0.0, "", list[str]()
        self.old = 0

    async def serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _reader.readuntil(b"\r\n\r\n")
        if self.file.exists() and time.time() - self.file.stat().st_mtime >= self.delay:
            self.shown = json.loads(self.file.read_text())["id"]
            if self.seen[-1:] != [self.shown]:
                self.seen.append(self.shown)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps({"view": self.shown}).encode())
        writer.close()

    def run(self, action: Callable[[NginxNative], Awaitable[Any]], limits: Limits = QUICK) -> Any:
        """Run an action with a driver of this stand-in."""

        async def inner() -> Any:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            observe = str(self.file.with_name("o.sock"))
            engine = NginxNative(os.getuid(), port, str(self.file), observe, limits, lambda: self.old)
            try:
                return await action(engine)
            finally:
                await engine.close()
                server.close()

        return asyncio.run(inner())


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with tempfile.TemporaryDirectory(prefix="llm-") as folder:
        yield StandIn(pathlib.Path(folder))


def view(port: int) -> View:
    return View((Peer("a", "default", "127.0.0.1", port, "up"),))


def test_views_that_nothing_urges_share_a_reload(stand_in: StandIn) -> None:
    async def act(engine: NginxNative) -> float:
        await engine.apply(view(1), False)
        begin = time.monotonic()
        await asyncio.gather(*(engine.apply(view(port), False) for port in range(2, 8)))
        return time.monotonic() - begin

    assert stand_in.run(act) >= 0.3
    assert stand_in.seen == [view(1).id, view(7).id]


def test_an_urgent_view_takes_the_waiting_ones_along(stand_in: StandIn) -> None:
    async def act(engine: NginxNative) -> float:
        await engine.apply(view(1), False)
        waiting = asyncio.ensure_future(engine.apply(view(2), False))
        await asyncio.sleep(0)
        begin = time.monotonic()
        await asyncio.gather(engine.apply(view(3), True), waiting)
        return time.monotonic() - begin

    assert stand_in.run(act, dataclasses.replace(QUICK, interval=60)) < 5
    assert stand_in.seen == [view(1).id, view(3).id]


def test_an_urgent_view_takes_the_place_of_one_that_is_not_confirmed(stand_in: StandIn) -> None:
    async def act(engine: NginxNative) -> float:
        stand_in.delay = 60
        stuck = asyncio.ensure_future(engine.apply(view(1), False))
        await asyncio.sleep(0.1)
        stand_in.delay = -60
        begin = time.monotonic()
        await asyncio.gather(engine.apply(view(2), True), stuck)
        return time.monotonic() - begin

    assert stand_in.run(act) < 2
    assert stand_in.seen[-1] == view(2).id


def test_old_workers_hold_up_views_unless_urgent(stand_in: StandIn) -> None:
    async def act(engine: NginxNative) -> None:
        stand_in.old = 9
        waiting = asyncio.ensure_future(engine.apply(view(1), False))
        await asyncio.sleep(1)
        assert not waiting.done()
        stand_in.old = 8
        await waiting
        stand_in.old = 9
        await engine.apply(view(2), True)

    stand_in.run(act)
    assert stand_in.seen == [view(1).id, view(2).id]


def test_a_view_that_is_in_force_costs_no_reload(stand_in: StandIn) -> None:
    async def act(engine: NginxNative) -> None:
        await engine.apply(view(1), True)
        written = stand_in.file.stat().st_mtime_ns
        await engine.apply(view(1), False)
        assert stand_in.file.stat().st_mtime_ns == written

    stand_in.run(act)


def test_the_file_is_written_anew_until_it_is_seen(stand_in: StandIn) -> None:
    async def act(engine: NginxNative) -> None:
        stand_in.delay = 60
        task = asyncio.ensure_future(engine.apply(view(1), True))
        written = set[int]()
        while len(written) < 2:  # the engine gives up in time, which ends the task and the wait
            assert not task.done(), written
            written |= {stand_in.file.stat().st_mtime_ns} if stand_in.file.exists() else set()
            await asyncio.sleep(0.01)
        stand_in.delay = 0
        await task

    stand_in.run(act, dataclasses.replace(QUICK, again=1))


def test_what_is_not_confirmed_is_an_error(stand_in: StandIn) -> None:
    stand_in.delay = 60
    with pytest.raises(EngineError, match="has not taken view .* within 0.3 s .*journalctl -u llm-balancer-apply"):
        stand_in.run(lambda engine: engine.apply(view(1), True), dataclasses.replace(QUICK, confirm=0.3, settle=0))
    stand_in.file.with_name(f".{stand_in.file.name}.new").mkdir()
    with pytest.raises(EngineError, match="Is a directory: the view cannot be handed to NGINX"):
        stand_in.run(lambda engine: engine.apply(view(2), True))


def test_nobody_there_is_an_engine_that_is_not_alive(stand_in: StandIn) -> None:
    async def look() -> Any:
        engine = NginxNative(0, free_port(), str(stand_in.file), str(stand_in.file.with_name("o.sock")))
        try:
            return await engine.look()
        finally:
            await engine.close()

    sight = asyncio.run(look())
    assert not sight.alive
    assert "/lb-health: " in sight.reason


# The real NGINX


class Native:
    """A lab with its driver, and in place of the path unit a task that calls the helper when the file changes."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.file = lab, lab.home / "state/nginx-view.json"
        assert lab.process
        commands = nginx_apply.Commands(lab.command("-t", "-q"), ("kill", "-HUP", str(lab.process.pid)))
        self.helper = lambda: nginx_apply.apply(self.file, lab.home / "view", commands)
        uid = pwd.getpwnam("www-data").pw_uid
        observe = str(lab.home / "run/llm-agent/observe.sock")
        self.engine = NginxNative(uid, lab.status_port, str(self.file), observe, Limits())
        self.peers: dict[str, Peer] = {}

    async def watch(self) -> None:
        """Call the helper at each change."""
        seen = 0
        while True:
            now = self.file.stat().st_mtime_ns if self.file.exists() else 0
            if now != seen:
                seen = now
                with contextlib.suppress(nginx_apply.ApplyError):
                    await asyncio.to_thread(self.helper)
            await asyncio.sleep(0.01)

    async def put(self, **states: Any) -> None:
        """Apply the view with these states."""
        for name, replica in self.lab.replicas.all.items():
            old = self.peers.get(name, Peer(name, replica.pool, "127.0.0.1", replica.port, "up"))
            self.peers[name] = dataclasses.replace(old, state=states.get(name, old.state))
        await self.engine.apply(View(tuple(self.peers.values())), True)

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        """Return the first sight that fits."""
        limit = time.monotonic() + AWAIT_SECONDS
        while True:
            sight = await self.engine.look()
            if condition(sight):
                return sight
            assert time.monotonic() < limit, sight
            await asyncio.sleep(0.05)


def native(names: str, act: Callable[[Native], Awaitable[None]]) -> None:
    """Run an action against a real NGINX in the native form."""
    with nginx_lab.lab("native") as lab:
        for name in names:
            lab.replicas.start(name)
        lab.start()

        async def run() -> None:
            it = Native(lab)
            watching = asyncio.ensure_future(it.watch())
            try:
                await act(it)
            finally:
                watching.cancel()
                await it.engine.close()

        asyncio.run(run())


@nginx_lab.needs_nginx
def test_without_a_view_the_errors_are_ours() -> None:
    async def act(it: Native) -> None:
        status, headers, text = it.lab.ask()
        assert (status, headers["Retry-After"]) == (502, "2")
        assert json.loads(text)["error"]["code"] == "no_replica_answered"
        assert it.lab.health()["view"] == ""

    native("", act)


@nginx_lab.needs_nginx
def test_states_reach_nginx_and_its_health_shows_the_view() -> None:
    async def act(it: Native) -> None:
        await it.put()
        assert it.lab.health()["view"] == View(tuple(it.peers.values())).id
        assert set(it.lab.spread(20)) == {"a", "b", "c"}
        await it.put(a="drain", b="down")
        assert set(it.lab.spread(20)) == {"c"}
        await it.put(c="drain")
        assert set(it.lab.spread(20)) == {"b"}
        await it.put(a="up", b="up", c="up")
        assert set(it.lab.spread(20)) == {"a", "b", "c"}

    native("abc", act)


@nginx_lab.needs_nginx
def test_a_drained_replica_s_streams_go_on_and_are_counted_to_the_last() -> None:
    async def act(it: Native) -> None:
        await it.put()
        it.lab.spread(8)  # leaves idle connections behind
        for replica in it.lab.replicas.all.values():
            replica.mode = "slow"
        lines = [it.lab.stream() for _turn in range(6)]
        await it.put(a="drain")
        sight = await it.until(lambda sight: sight.inflight["a"] == 3)
        assert (sight.alive, sight.exact) == (True, False)
        it.lab.replicas.finish()
        for line in lines:
            assert b"[DONE]" in await asyncio.to_thread(read_all, line)
        await it.until(lambda sight: sight.inflight["a"] == 0)

    native("ab", act)


@nginx_lab.needs_nginx
def test_a_replica_that_left_is_counted_until_it_is_idle() -> None:
    async def act(it: Native) -> None:
        await it.put()
        it.lab.replicas.all["a"].mode = it.lab.replicas.all["b"].mode = "slow"
        lines = [it.lab.stream() for _turn in range(2)]
        await it.engine.apply(View((it.peers["b"],)), True)
        await it.until(lambda sight: sight.inflight["a"] == 1)
        for line in lines:
            line.close()
        await it.until(lambda sight: "a" not in sight.inflight)

    native("ab", act)


@nginx_lab.needs_nginx
def test_what_requests_meet_is_observed() -> None:
    async def act(it: Native) -> None:
        await it.put()
        await it.engine.look()  # listens from now on
        it.lab.replicas.all["a"].mode = "broken"
        assert it.lab.spread(8)["b"] == 8
        sight = await it.until(lambda sight: sight.observed["b"].good == 8)
        assert sight.observed["a"].failed == sight.observed["a"].failed_in_row > 0

    native("ab", act)


@nginx_lab.needs_nginx
def test_nobody_who_observes_is_nobody_who_waits() -> None:
    async def act(it: Native) -> None:
        await it.put()
        assert it.lab.spread(50)["a"] == 50
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
            deaf.bind(str(it.lab.home / "run/llm-agent/observe.sock"))
            pathlib.Path(deaf.getsockname()).chmod(0o666)
            begin = time.monotonic()
            assert it.lab.spread(200)["a"] == 200
            assert time.monotonic() - begin < 10

    native("a", act)


@nginx_lab.needs_nginx
def test_a_view_that_nginx_refuses_leaves_the_former_one() -> None:
    async def act(it: Native) -> None:
        await it.put()
        await asyncio.to_thread((it.lab.home / "keys.conf").write_text, "nonsense")
        it.engine._limits = Limits(confirm=1)
        former = it.lab.health()["view"]
        with pytest.raises(EngineError):
            await it.put(a="drain")
        assert it.lab.health()["view"] == former
        assert set(it.lab.spread(20)) == {"a", "b"}
        assert (it.lab.home / "view/current").readlink() == pathlib.Path(former)

    native("ab", act)


@nginx_lab.needs_nginx
def test_kept_connections_get_the_new_view() -> None:
    async def act(it: Native) -> None:
        await it.put()
        for turn in range(6):
            connection = http.client.HTTPConnection("127.0.0.1", it.lab.port, timeout=15)
            connection.connect()
            await it.put(a="drain" if turn % 2 == 0 else "up")
            with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError):  # the price of a reload
                connection.request("POST", "/v1/completions", "{}", {"Authorization": f"Bearer {KEY}"})
                assert connection.getresponse().status == 200
            connection.close()
            assert ("a" in it.lab.spread(12)) is (turn % 2 == 1)

    native("ab", act)
