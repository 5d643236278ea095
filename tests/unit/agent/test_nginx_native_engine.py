"""The engine of the native form with a real NGINX, and with what systemd does between both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import nginx_apply, nginx_host
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, Peer, View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_native import Limits, NginxNative

from tests.unit.agent.nginx_lab import Lab, lab

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or os.geteuid() != 0, reason="needs the nginx program and root"
)
NAMES = ("g1/r0", "g2/r0")


@contextlib.contextmanager
def path_unit(it: Lab) -> Iterator[None]:
    """Run root's helper whenever the agent wrote, as llm-balancer-apply.path does."""
    assert it.process
    view, stop = it.home / "state/nginx-view.json", threading.Event()
    reload = ("kill", "-HUP", str(it.process.pid))
    commands = nginx_apply.Commands(("nginx", "-t", "-q", "-c", str(it.home / "nginx.conf")), reload)

    def watch() -> None:
        seen = None
        while not stop.wait(0.01):
            now = view.stat().st_mtime_ns if view.exists() else None
            if now != seen:
                seen = now
                with contextlib.suppress(nginx_apply.ApplyError):
                    nginx_apply.apply(view, it.home / "view", commands)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


@pytest.fixture
def it() -> Iterator[Lab]:
    with lab("native") as it:
        for name in NAMES:
            it.peers[name] = Peer(name, "default", "127.0.0.1", it.replicas.start(name).port, "up")
        it.start()
        with path_unit(it):
            yield it


def engine_of(it: Lab, **limits: float) -> NginxNative:
    uid = pwd.getpwnam("www-data").pw_uid
    places = str(it.home / "state/nginx-view.json"), str(it.home / "run/llm-agent/observe.sock")
    return NginxNative(uid, it.status_port, *places, Limits(**{"interval": 0, **limits}))  # type: ignore[arg-type]


def tell(it: Lab, story: Callable[[NginxNative], Awaitable[None]], **limits: float) -> None:
    """Run a story with an engine; both ends must not share a thread."""

    async def told() -> None:
        engine = engine_of(it, **limits)
        try:
            await asyncio.wait_for(story(engine), 30)
        finally:
            await engine.close()

    asyncio.run(told())


async def sight_with(engine: NginxNative, fits: Callable[[Sight], bool]) -> Sight:
    while not fits(sight := await engine.look()):
        await asyncio.sleep(0.02)
    return sight


def with_state(it: Lab, **states: Any) -> View:
    view = it.view()
    return View(
        tuple(Peer(**{**vars(peer), "state": states.get(peer.id[:2], peer.state)}) for peer in view.peers), slow_start=0
    )


def test_a_drain_is_confirmed_when_no_worker_sends_there_any_more(it):
    async def story(engine: NginxNative) -> None:
        await engine.apply(it.view(), urgent=True)
        for turn in range(5):
            before = set(it.serving())
            await engine.apply(with_state(it, g1="drain" if turn % 2 == 0 else "up"), urgent=True)
            assert not before & set(it.serving())

    tell(it, story)


def test_streams_of_a_drained_replica_are_counted_until_they_end(it):
    drained = with_state(it, g1="drain")

    async def story(engine: NginxNative) -> None:
        await engine.apply(it.view(), urgent=True)
        for replica in it.replicas.all.values():
            replica.mode = "slow"
        lines: list[socket.socket] = [await asyncio.to_thread(it.stream) for _turn in range(6)]
        await engine.apply(drained, urgent=True)
        assert (await engine.look()).inflight == {"g1/r0": 3, "g2/r0": 3}
        # an agent that was restarted knows at once, and has nothing to reload
        workers, following = set(it.workers()), engine_of(it)
        assert (await following.look()).inflight["g1/r0"] == 3
        await following.apply(drained, urgent=False)
        assert set(it.workers()) == workers
        await following.close()
        it.replicas.finish()
        await sight_with(engine, lambda sight: sight.inflight["g1/r0"] == 0)
        for line in lines:
            line.close()

    tell(it, story)


def test_answers_and_failures_are_observed(it):
    async def story(engine: NginxNative) -> None:
        await engine.apply(it.view(), urgent=True)
        await engine.look()
        await asyncio.to_thread(lambda: it.replicas.run(it.replicas.close("g1/r0")))
        for _turn in range(4):
            assert (await asyncio.to_thread(it.ask))[0] == 200
        sight = await sight_with(engine, lambda sight: sight.observed["g2/r0"] == Observed(4, 0, 0))
        failing = sight.observed["g1/r0"]
        assert failing.failed == failing.failed_in_row > 0

    tell(it, story)


def test_hundreds_of_replicas_of_a_pool_fit(it):
    many = View(tuple(Peer(f"g{n}/r0", "default", f"192.0.2.{n % 250}", 1024 + n, "up") for n in range(2000)))

    async def story(engine: NginxNative) -> None:
        await engine.apply(many, urgent=True)
        assert it.health()["view"] == many.id

    tell(it, story)


def test_what_nginx_does_not_take_is_an_error_that_says_where_to_look(it):
    async def story(engine: NginxNative) -> None:
        await engine.apply(it.view(), urgent=True)
        (it.home / "nginx.conf").write_text("nonsense;")
        with pytest.raises(EngineError, match="see journalctl -u llm-balancer-apply"):
            await engine.apply(with_state(it, g1="drain"), urgent=True)
        assert it.health()["view"] == it.view().id

    tell(it, story, confirm=1)


def test_old_workers_put_off_what_can_wait_but_not_for_ever(it):
    async def story(engine: NginxNative) -> None:
        engine._old_generations = lambda: 9
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await engine.apply(it.view(), urgent=False)
        assert loop.time() - begun >= 0.5

    tell(it, story, interval=0.2, patience=0.5)


def test_workers_are_told_apart(tmp_path):
    titles = {"1": "master process nginx", "2": "worker process", "3": "worker process is shutting down"}
    for number, title in titles.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "cmdline").write_bytes(f"nginx: {title}".encode() + b"\0" * 9)
    (pathlib.Path(tmp_path) / "4").mkdir()
    assert nginx_host.serving(tmp_path) == {2}
    assert nginx_host.old_generations(tmp_path) == 1
