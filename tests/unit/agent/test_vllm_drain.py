"""Waiting for drained replicas: the logic with a clock that is turned by hand, the module against real fakes."""

from __future__ import annotations

import json
import pathlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import AgentError, Control
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Load, Replica
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.drain import (
    Drain,
    DrainError,
    NotIdle,
    Watched,
    Wish,
    watched,
)

from tests.fakes.agent import Running
from tests.fakes.vllm.running import KEY, Fake, await_that
from tests.ports import free_port

Run = Callable[..., Any]
IDS = ["g1/r0", "g2/r0"]


def load(running: int = 0, waiting: int = 0, steps: int = 0) -> Load:
    return Load(running, waiting, 0.0, None, steps, 0)


REFUSED = ApiError("GET http://192.0.2.21:8000/metrics: connection refused", kind="refused")
SILENT = ApiError("GET http://192.0.2.21:8000/metrics: timed out after 5 s", kind="timeout")
BROKEN = ApiError("GET http://192.0.2.21:8000/metrics: answered 500", status=500)
GONE = AgentError("the agent does not run: nobody listens")
IDLE = (0, load())
Seen = tuple[Any, Any]  # in flight, or the agent's error; load, or the replica's error


@dataclass(frozen=True)
class Told(Replica):
    """A replica whose metrics are read off a list."""

    answers: Iterator[Any] = field(default_factory=lambda: iter([]))

    def load(self, timeout: float | None = None) -> Load:
        answer = next(self.answers)
        if isinstance(answer, ApiError):
            raise answer
        assert isinstance(answer, Load)
        return answer


class Lab(Control):
    """An agent and a replica as a list says, look by look, of which the last stays. Sleep turns the clock."""

    def __init__(self, looks: list[Seen], states: dict[str, str] | None = None) -> None:
        self.now, self.looks = 1000.0, list(looks)
        self.states = {"g1/r0": "drained"} if states is None else states
        self.asked = 0

    def status(self) -> dict[str, Any]:
        flight = self.looks[min(self.asked, len(self.looks) - 1)][0]
        self.asked += 1
        if isinstance(flight, AgentError):
            raise flight
        rows = [{"id": one, "administrative": a, "inflight": flight, "note": "by x"} for one, a in self.states.items()]
        return {"replicas": rows}

    def answers(self) -> Iterator[Any]:
        while True:
            yield self.looks[min(self.asked, len(self.looks)) - 1][1]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drain(self, **wish: Any) -> Drain:
        one = Watched("g1/r0", Told("http://192.0.2.21:8000", answers=self.answers()))
        return Drain(self, [one], Wish(**wish), clock=lambda: self.now, sleep=self.sleep)


@pytest.mark.parametrize(
    ("looks", "count"),
    [
        ([IDLE], 2),
        ([(1, load()), IDLE], 3),
        ([(0, load(1)), IDLE], 3),
        ([(0, load(0, 1)), IDLE], 3),
        ([IDLE, (0, load(1)), IDLE], 4),
        ([(None, load()), IDLE], 3),
        ([(GONE, load()), IDLE], 3),
        ([(0, REFUSED)], 2),
        ([(2, REFUSED), (0, REFUSED)], 3),
        ([(0, SILENT), IDLE], 3),
        ([(0, BROKEN), IDLE], 3),
        ([(0, load(1)), (0, REFUSED)], 3),
    ],
    ids=lambda value: str(value)[:40],
)
def test_idle_is_what_both_sides_say_twice_in_a_row(looks: list[Seen], count: int) -> None:
    lab = Lab(looks)
    found = lab.drain().wait()
    assert found.idle and not found.timed_out and lab.asked == count
    assert found.elapsed == count - 1
    assert found.msg == f"idle after {count - 1} s: g1/r0"
    assert (found.left, found.inflight) == ({"g1/r0": 0}, {"g1/r0": 0})


@pytest.mark.parametrize(("scrapes", "count"), [(1, 1), (3, 3)])
def test_so_many_looks_as_are_wanted(scrapes: int, count: int) -> None:
    lab = Lab([IDLE])
    assert lab.drain(scrapes=scrapes).wait().idle and lab.asked == count


def test_one_whose_process_is_gone_is_told() -> None:
    found = Lab([(0, REFUSED)]).drain().wait()
    assert found.notes == [
        "g1/r0 is taken for idle: nobody listens at http://192.0.2.21:8000, and nothing is in flight from this balancer"
    ]
    assert (found.running, found.waiting) == ({"g1/r0": None}, {"g1/r0": None})


@pytest.mark.parametrize(
    ("look", "words", "left"),
    [
        ((3, load(2, 2)), "g1/r0 3 in flight, 2 running, 2 waiting", 4),
        ((5, load(3)), "g1/r0 5 in flight, 3 running, 0 waiting", 5),
        ((None, load(3)), "g1/r0 in flight not known, 3 running, 0 waiting", 3),
        ((2, SILENT), "g1/r0 2 in flight, running not known (GET http://192.0.2.21:8000/metrics: timed out aft", 2),
        ((0, BROKEN), "g1/r0 0 in flight, running not known (GET http://192.0.2.21:8000/metrics: answered 500)", 0),
        ((2, REFUSED), "running not known (GET http://192.0.2.21:8000/metrics: connection refused)", 2),
        ((None, SILENT), "g1/r0 in flight not known, running not known", None),
    ],
)
def test_over_the_time_it_fails_and_says_what_is_left(look: Seen, words: str, left: int | None) -> None:
    with pytest.raises(NotIdle, match="^not idle after 60 s: ") as raised:
        Lab([look]).drain(timeout=60).wait()
    text, found = str(raised.value), raised.value.outcome
    assert words in text and found.msg == text
    assert "stays drained. Wait longer (timeout), look what runs there (llm-balancer explain), put it back" in text
    assert "or cut what is left (fail_on_timeout=false)" in text
    assert (found.idle, found.timed_out, found.elapsed, found.left) == (False, True, 60, {"g1/r0": left})


def test_it_may_be_left_to_the_caller_to_cut() -> None:
    found = Lab([(3, load(4))]).drain(timeout=20, fail_on_timeout=False).wait()
    assert (found.idle, found.timed_out, found.left) == (False, True, {"g1/r0": 4})
    assert found.msg == "not idle after 20 s: g1/r0 3 in flight, 4 running, 0 waiting"


def test_what_did_not_come_from_here_is_explained() -> None:
    found = Lab([(0, load(4, 0, 7))]).drain(timeout=60, fail_on_timeout=False).wait()
    assert "4 running, 0 waiting (no engine step for 60 s: its engine hangs)" in found.msg
    assert (
        "Nothing is in flight from this balancer to g1/r0: what runs there came through another balancer" in found.msg
    )


def test_an_engine_that_steps_does_not_hang() -> None:
    found = Lab([(1, load(1, 0, steps)) for steps in range(100)]).drain(timeout=90, fail_on_timeout=False).wait()
    assert "hangs" not in found.msg


@pytest.mark.parametrize("timeout", [0, -3])
def test_without_time_it_is_looked_and_not_waited(timeout: float) -> None:
    lab = Lab([(1, load(1))])
    with pytest.raises(NotIdle, match="not idle after 0 s"):
        lab.drain(timeout=timeout).wait()
    assert lab.asked == 1
    assert Lab([IDLE]).drain(timeout=timeout).wait().idle  # what is idle is looked at until that is sure


def test_it_returns_in_between_and_goes_on() -> None:
    lab = Lab([(1, load(1))] * 30 + [IDLE])
    first = lab.drain(timeout=100, return_after=20.5).wait()
    assert (first.idle, first.timed_out, first.elapsed) == (False, False, 20.5)
    assert first.msg == "not idle yet after 20 s: g1/r0 1 in flight, 1 running, 0 waiting"
    second = lab.drain(timeout=100 - first.elapsed, return_after=20.5).wait()
    assert second.idle and 7 < second.elapsed < 10


def test_the_time_limit_is_before_the_return() -> None:
    with pytest.raises(NotIdle, match="not idle after 5 s"):
        Lab([(1, load(1))]).drain(timeout=5, return_after=5).wait()


def test_looks_that_have_begun_are_finished() -> None:
    lab = Lab([(1, load(1))] * 5 + [IDLE])
    assert lab.drain(timeout=100, return_after=5).wait().idle


def test_progress_is_told_every_ten_seconds_and_bounded() -> None:
    found = Lab([(3, load(3))]).drain(timeout=25, fail_on_timeout=False).wait()
    assert [line.split(": ")[0] for line in found.progress] == ["0 s", "10 s", "20 s", "25 s"]
    assert found.progress[1] == "10 s: g1/r0 3 in flight, 3 running, 0 waiting"
    assert len(Lab([(3, load(3))]).drain(timeout=5000, fail_on_timeout=False).wait().progress) == 100


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"g1/r0": "active"}, "g1/r0 is active: somebody put it back (by x)"),
        ({"g2/r0": "drained"}, "g1/r0 is no member any more"),
    ],
)
def test_one_that_is_put_back_or_leaves_ends_the_wait(states: dict[str, str], words: str) -> None:
    lab = Lab([(1, load(1))], states)
    with pytest.raises(NotIdle) as raised:
        lab.drain().wait()
    assert words in str(raised.value) and lab.asked == 1
    assert not raised.value.outcome.timed_out


def test_an_agent_that_stays_away_ends_the_wait() -> None:
    lab = Lab([(1, load(1)), (GONE, load(1))])
    with pytest.raises(NotIdle, match="the agent does not run"):
        lab.drain().wait()
    assert 15 < lab.now - 1000 < 18


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scrapes": 0}, "scrapes is 0, needed is 1 or more"),
        ({"interval": 0}, "interval is 0, needed is 0.01 or more"),
        ({"return_after": -1}, "return_after is -1, needed is 0 or more"),
    ],
)
def test_a_wish_that_cannot_be_meant(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DrainError, match=words):
        Wish(**change)


def test_nobody_and_one_twice_are_refused() -> None:
    entry = {"id": "g1/r0", "url": "http://192.0.2.21:8000"}
    with pytest.raises(DrainError, match="replicas names none"):
        Drain(Lab([IDLE]), [], Wish())
    with pytest.raises(DrainError, match="replicas names g1/r0 twice"):
        Drain(Lab([IDLE]), watched([entry, entry], "", 5), Wish())


# --- the module


@pytest.fixture
def drain(agent: Running, run_module: Run) -> Run:
    def run(*urls: str, check: bool = False, **more: Any) -> Any:
        replicas = [{"id": one, "url": url} for one, url in zip(IDS, urls)]
        quick = {"interval": 0.05, "timeout": 15, "socket": str(agent.path), "api_key": KEY}
        return run_module("vllm_drain", {"replicas": replicas, **quick, **more}, check=check)

    return run


@pytest.fixture
def drained(agent: Running) -> Running:
    agent.store.set(IDS, "drained", "", "x")
    return agent


def running(fake: Fake) -> None:
    await_that(lambda: fake.busy() == (1, 0), "the request runs")


def test_it_waits_for_requests_that_run(drained: Running, drain: Run, start: Callable[..., Fake]) -> None:
    fakes = [start({"FAKE_VLLM_ITL_MS": "10"}), start()]
    stream = fakes[0].stream(100)
    running(fakes[0])
    result = drain(*(fake.url for fake in fakes))
    assert not result.failed and not result["changed"] and result["idle"]
    assert b"[DONE]" in stream.read()
    assert (result["running"], result["waiting"]) == ({"g1/r0": 0, "g2/r0": 0},) * 2
    assert result["progress"][0] == "0 s: g1/r0 0 in flight, 1 running, 0 waiting"
    assert result["elapsed"] > 0.1 and KEY not in json.dumps(result)


def test_it_waits_for_what_is_in_flight(drained: Running, drain: Run, start: Callable[..., Fake]) -> None:
    url, row = start().url, drained.world["replicas"]["g1/r0"]
    row["inflight"] = 3
    end = threading.Timer(1, lambda: row.update(inflight=0))
    end.start()
    result = drain(url)
    assert result["idle"] and result["inflight"] == {"g1/r0": 0}
    assert result["progress"][0] == "0 s: g1/r0 3 in flight, 0 running, 0 waiting"


def test_a_frozen_engine_is_waited_for_until_the_end(drained: Running, drain: Run, start: Callable[..., Fake]) -> None:
    fake = start({"FAKE_VLLM_ITL_MS": "50"})
    stream = fake.stream(1000)
    running(fake)
    fake.fault("freeze_engine")
    failed = drain(fake.url, timeout=0.5)
    assert failed.failed and failed["timed_out"] and failed["running"] == {"g1/r0": 1}
    assert re.match(r"not idle after \d+ s: g1/r0 0 in flight, 1 running, 0 waiting", failed["msg"])
    assert "or its engine hangs" in failed["msg"] and "stays drained" in failed["msg"]
    cut = drain(fake.url, timeout=0.5, fail_on_timeout=False)
    assert not cut.failed and cut["timed_out"] and not cut["idle"] and cut["left"] == {"g1/r0": 1}
    back = drain(fake.url, return_after=0.2)
    assert not back.failed and not back["idle"] and not back["timed_out"]
    stream.close()


def test_one_that_does_not_answer_is_not_idle(drained: Running, drain: Run, start: Callable[..., Fake]) -> None:
    fake = start()
    fake.fault("hang_after_accept")
    result = drain(fake.url, timeout=0.5, request_timeout=0.2)
    assert result.failed and "/metrics: timed out after 0.2 s" in result["msg"]
    assert result["running"] == {"g1/r0": None}


def test_one_whose_process_is_not_there_is_idle(drained: Running, drain: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = drain(url)
    assert result["idle"] and f"nobody listens at {url}" in result["notes"][0]


def test_one_that_is_put_back_meanwhile_ends_the_wait(drained: Running, drain: Run) -> None:
    drained.world["replicas"]["g1/r0"]["inflight"] = 1
    back = threading.Timer(0.3, lambda: drained.store.set(["g1/r0"], "active", "", "ops"))
    back.start()
    result = drain(f"http://127.0.0.1:{free_port()}")
    assert result.failed and "g1/r0 is active: somebody put it back (ops)" in result["msg"]
    assert not result["timed_out"]


def test_it_drains_nothing_itself(agent: Running, drain: Run) -> None:
    result = drain(f"http://127.0.0.1:{free_port()}")
    assert result.failed and "g1/r0 is active" in result["msg"] and agent.store.admin() == {}


def test_check_mode_looks_once_at_what_is_not_drained(agent: Running, drain: Run, start: Callable[..., Fake]) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 3
    result = drain(start().url, check=True)
    assert not result.failed and result["skipped"] and not result["idle"]
    assert result["msg"] == "looked once in check mode: g1/r0 3 in flight, 0 running, 0 waiting"


def test_check_mode_never_fails_for_what_does_not_answer(drain: Run, tmp_path: pathlib.Path) -> None:
    result = drain(f"http://127.0.0.1:{free_port()}", check=True, socket=str(tmp_path / "none"))
    assert not result.failed and not result["idle"] and "the agent does not run" in result["notes"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replicas": []}, "replicas names none: name those that were drained"),
        ({"replicas": [{"id": "g1/r0", "url": "localhost:1"}]}, "url is 'localhost:1': give it as http://address:port"),
        ({"replicas": [{"id": "g7/r0", "url": "http://127.0.0.1:1"}]}, "g7/r0 is no member any more"),
        ({"scrapes": 0}, "scrapes is 0, needed is 1 or more"),
    ],
)
def test_what_is_asked_wrongly_is_told(drained: Running, drain: Run, change: dict[str, Any], words: str) -> None:
    result = drain("http://127.0.0.1:1", **change)
    assert result.failed and words in result["msg"]
