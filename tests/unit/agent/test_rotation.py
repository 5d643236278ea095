"""The wanted view and its way into force."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Member, Peer, Verdict, View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.rotation import (
    Rotation,
    is_urgent,
    remembered,
    view_of,
)


def verdict(in_rotation: bool = True, weight: float = 1.0, since: float = 0) -> Verdict:
    return Verdict("up" if in_rotation else "down", in_rotation, weight, "", "", False, since, None)


def members(*names: str) -> list[Member]:
    return [Member(name, "chat", "192.0.2.1", 8000 + number, "m") for number, name in enumerate(names)]


def test_administrative_state_wins_over_health():
    verdicts = {"a": verdict(), "b": verdict(False), "c": verdict(True), "d": verdict(False)}
    view = view_of(members("a", "b", "c", "d"), {"c": "drained", "d": "drained"}, verdicts, View(slow_start=7))
    assert [(peer.id, peer.state) for peer in view.peers] == [
        ("a", "up"),
        ("b", "down"),
        ("c", "drain"),
        ("d", "drain"),
    ]
    assert view.slow_start == 7


def test_a_view_is_what_it_was_after_disk(tmp_path):
    view = View((Peer("g/r0", "chat", "192.0.2.1", 8000, "up", 0.5, 12.5),), 3, 4, 5)
    (tmp_path / "view.json").write_text(view.text())
    assert remembered(tmp_path / "view.json") == view
    assert remembered(tmp_path / "none.json") is None
    for broken in ("", "{", "[]", '{"peers": 3}', '{"peers": [{"id": 1}]}', view.text()[:-5]):
        (tmp_path / "view.json").write_text(broken)
        assert remembered(tmp_path / "view.json") is None


def test_only_what_leaves_is_urgent():
    up, down = (Peer("a", "p", "192.0.2.1", 1, state) for state in ("up", "down"))
    assert is_urgent(View((up,)), View((down,)))
    assert is_urgent(View((up,)), View())
    assert not is_urgent(View((down,)), View((up,)))
    assert not is_urgent(View((up,)), View((up,)))


class Engine:
    """Takes views as it is told to: at once, never, or with an error."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, bool]] = []
        self.answer: Callable[[View, bool], Awaitable[None]] | None = None

    async def apply(self, view: View, urgent: bool) -> None:
        self.applied.append((view.id, urgent))
        if self.answer is not None:
            await self.answer(view, urgent)

    async def look(self) -> Sight:
        return Sight(alive=True)

    async def close(self) -> None:
        return


def with_rotation(tmp_path, play: Callable[[Rotation, Engine, list[Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        engine, said = Engine(), []
        rotation = Rotation(engine, tmp_path / "view.json", lambda topic, problem: said.append((topic, problem)))
        task = asyncio.ensure_future(rotation.run())
        try:
            await asyncio.wait_for(play(rotation, engine, said), 10)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())


UP = View((Peer("a", "p", "192.0.2.1", 1, "up"),))
DRAIN = View((Peer("a", "p", "192.0.2.1", 1, "drain"),))


def test_view_is_on_disk_before_the_engine_has_it(tmp_path):
    async def play(rotation: Rotation, engine: Engine, _said: list[Any]) -> None:
        seen: list[View | None] = []

        async def answer(_view: View, _urgent: bool) -> None:
            seen.append(remembered(tmp_path / "view.json"))

        engine.answer = answer
        rotation.want(UP)
        assert await rotation.settled(2)
        assert seen == [UP]

    with_rotation(tmp_path, play)


def test_an_engine_that_refuses_is_asked_again_and_the_problem_is_said(tmp_path):
    async def play(rotation: Rotation, engine: Engine, said: list[Any]) -> None:
        async def answer(_view: View, _urgent: bool) -> None:
            if len(engine.applied) < 3:
                raise EngineError("no socket")

        engine.answer = answer
        rotation.want(UP)
        rotation.want(DRAIN)
        assert await rotation.settled(5)
        assert rotation.confirmed == DRAIN.id
        assert ("engine", "no socket") in said
        assert ("engine", "") in said
        assert engine.applied == [(DRAIN.id, True)] * 3

    with_rotation(tmp_path, play)


def test_a_drain_does_not_wait_for_a_change_that_is_put_off(tmp_path):
    async def play(rotation: Rotation, engine: Engine, _said: list[Any]) -> None:
        async def answer(_view: View, urgent: bool) -> None:
            await asyncio.sleep(0 if urgent else 60)

        engine.answer = answer
        rotation.want(UP)
        while not engine.applied:
            await asyncio.sleep(0)
        rotation.want(DRAIN)
        assert await rotation.settled(2)
        assert engine.applied == [(UP.id, False), (DRAIN.id, True)]

    with_rotation(tmp_path, play)


def test_an_engine_that_lost_its_view_gets_it_again(tmp_path):
    async def play(rotation: Rotation, engine: Engine, _said: list[Any]) -> None:
        rotation.want(UP)
        assert await rotation.settled(2)
        rotation.lost()
        assert not rotation.in_force
        assert await rotation.settled(2)
        assert [ident for ident, _urgent in engine.applied] == [UP.id, UP.id]

    with_rotation(tmp_path, play)


def test_nobody_waits_for_ever(tmp_path):
    async def play(rotation: Rotation, engine: Engine, _said: list[Any]) -> None:
        async def answer(_view: View, _urgent: bool) -> None:
            await asyncio.sleep(60)

        engine.answer = answer
        rotation.want(UP)
        assert not await rotation.settled(0.1)

    with_rotation(tmp_path, play)


def test_a_disk_that_takes_nothing_stops_no_change(tmp_path):
    async def play(rotation: Rotation, _engine: Engine, said: list[Any]) -> None:
        (tmp_path / ".view.json.new").mkdir()  # the file beside cannot be written
        rotation.want(UP)
        assert await rotation.settled(2)
        assert any(topic == "view" and "cannot be written" in problem for topic, problem in said)

    with_rotation(tmp_path, play)


@pytest.mark.parametrize("drained", [True, False])
def test_since_counts_only_for_those_that_are_up(drained):
    states = {"a": "drained" if drained else "active"}
    view = view_of(members("a"), states, {"a": verdict(True, since=99.04)}, View())
    assert view.peers[0].since == (0 if drained else 99.0)
