"""The whole agent, as a process, with replicas that are the fake vLLM, and an engine that keeps what it gets."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.vllm.running import Fake, await_that
from tests.ports import free_port
from tests.unit.agent.running import Agent, agents


@pytest.fixture
def make(tmp_path: pathlib.Path) -> Iterator[Callable[..., Agent]]:
    with agents(tmp_path) as maker:
        yield maker


def with_two(make: Callable[..., Agent], start: Callable[..., Fake]) -> tuple[Agent, Fake, Fake]:
    one, two = start(), start()
    agent = make("lb1")
    agent.members({"a/r0": one.port, "b/r0": two.port})
    agent.start()
    agent.await_states(a_r0="up", b_r0="up")
    return agent, one, two


def test_dead_replica_is_out_within_two_seconds_and_comes_back(make, start):
    agent, one, _two = with_two(make, start)
    one.kill()
    assert agent.await_states(a_r0="down", b_r0="up") < 2
    row = agent.row("a/r0")
    assert (row["health"], row["in_rotation"], row["kind"]) == ("down", False, "fact")
    assert "refused" in row["reason"]
    last = agent.ask("GET", "/v1/replicas?id=a/r0")[1]["history"][-1]
    assert (last["replica"], last["after"]) == ("a/r0", "down")


def test_drain_is_refused_below_the_minimum_and_survives_a_killed_agent(make, start):
    agent, _one, _two = with_two(make, start)
    wish = {"replicas": ["a/r0"], "state": "drained", "by": "me", "reason": "disk"}
    status, told = agent.ask("POST", "/v1/state", wish)
    assert (status, told["changed"], agent.states()) == (200, True, {"a/r0": "drain", "b/r0": "up"})
    assert agent.ask("POST", "/v1/state", wish)[1]["changed"] is False
    status, told = agent.ask("POST", "/v1/state", {**wish, "replicas": ["b/r0"]})
    assert (status, agent.states()["b/r0"]) == (409, "up")
    assert "pool chat would have 0" in told["error"]["message"]
    seen = len(agent.engine.views)
    agent.kill()
    agent.start()
    await_that(lambda: agent.status()["engine"]["confirmed"], "the engine has the view")
    row = agent.row("a/r0")
    assert (row["administrative"], row["note"]) == ("drained", "disk (me)")
    for view in agent.engine.views[seen:]:
        states = {peer["id"]: peer["state"] for peer in view["peers"]}
        assert states == {"a/r0": "drain", "b/r0": "up"}, "a restart of the agent is no change"
    assert agent.ask("POST", "/v1/state", {**wish, "state": "active"})[0] == 200
    agent.await_states(a_r0="up")


def test_a_broken_membership_keeps_the_old_one_over_a_restart(make, start):
    agent, _one, _two = with_two(make, start)
    agent.write_members("{")
    await_that(lambda: agent.status()["membership"]["problems"], "the problem is told")
    assert agent.states() == {"a/r0": "up", "b/r0": "up"}
    agent.kill()
    agent.start()
    await_that(lambda: agent.status()["engine"]["confirmed"], "the engine has the view")
    assert sorted(agent.states()) == ["a/r0", "b/r0"]
    assert "site.json" in agent.status()["membership"]["problems"][0]


def test_an_active_replica_is_not_dropped_by_a_slip(make, start):
    agent, _one, two = with_two(make, start)
    agent.members({"b/r0": two.port})
    await_that(lambda: agent.status()["membership"]["problems"], "the problem is told")
    assert agent.states() == {"a/r0": "up", "b/r0": "up"}
    agent.ask("POST", "/v1/state", {"replicas": ["a/r0"], "state": "drained"})
    await_that(lambda: agent.states() == {"b/r0": "up"}, "a drained one goes")
    assert agent.status()["membership"]["problems"] == []


def test_a_replica_that_was_removed_and_comes_again_is_active(make, start):
    agent, one, two = with_two(make, start)
    agent.ask("POST", "/v1/state", {"replicas": ["a/r0"], "state": "drained"})
    agent.members({"b/r0": two.port})
    await_that(lambda: agent.states() == {"b/r0": "up"}, "a drained one goes")
    agent.members({"a/r0": one.port, "b/r0": two.port})
    agent.await_states(a_r0="up", b_r0="up")


def test_peers_learn_a_drain_and_an_older_word_changes_nothing(make, start):
    fake, other = start(), start()
    first, second = make("lb1"), make("lb2")
    for agent, peer in ((first, second), (second, first)):
        agent.knows(peer)
        agent.members({"a/r0": fake.port, "b/r0": other.port})
    first.start()
    first.await_states(a_r0="up", b_r0="up")
    first.ask("POST", "/v1/state", {"replicas": ["a/r0"], "state": "drained", "by": "me"})
    second.start()
    second.await_states(a_r0="drain", b_r0="up")
    await_that(lambda: second.status()["balancer"]["synced"], "the second has heard the first")
    # what the second decides later wins at the first, which was away meanwhile
    first.kill()
    second.ask("POST", "/v1/state", {"replicas": ["a/r0"], "state": "active", "by": "me"})
    first.start()
    first.await_states(a_r0="up")
    second.await_states(a_r0="up")
    assert not first.status()["membership"]["problems"]


def test_an_engine_that_lost_its_view_gets_it_again_and_the_address_follows_its_death(make, start):
    agent, _one, _two = with_two(make, start)
    hold, away = (agent.places["run"] / name for name in ("hold", "away"))
    await_that(lambda: hold.exists() and hold.read_text() == "0\n" and not away.exists(), "it may hold the address")
    agent.engine.stop()
    await_that(lambda: hold.read_text() == "1\n" and away.exists(), "it must not hold the address")
    agent.engine.start()
    agent.await_states(a_r0="up", b_r0="up")
    await_that(lambda: hold.read_text() == "0\n" and not away.exists(), "it may hold the address again")
    agent.ask("POST", "/v1/balancer", {"state": "away", "by": "me"})
    assert hold.read_text() == "1\n"


def test_death_of_the_agent_leaves_what_keepalived_reads(make, start):
    agent, _one, _two = with_two(make, start)
    hold = agent.places["run"] / "hold"
    await_that(lambda: hold.exists() and hold.read_text() == "0\n", "it may hold the address")
    agent.kill()
    assert hold.read_text() == "0\n"
    agent.start()
    assert hold.read_text() == "0\n"


def test_a_disk_that_takes_nothing_stops_no_decision(make, start):
    agent, _one, _two = with_two(make, start)
    for name in ("admin.json", "view.json", "recovery.json"):
        path = agent.places["state"] / name
        path.unlink(missing_ok=True)
        path.mkdir()  # nothing can be put in its place
        (path / "x").touch()
    assert agent.ask("POST", "/v1/state", {"replicas": ["a/r0"], "state": "drained"})[0] == 200
    agent.await_states(a_r0="drain")
    await_that(lambda: agent.status()["membership"]["problems"], "the problem is told")


@contextlib.contextmanager
def hostile(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does to each connection what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _address = server.accept()
                    held.append(connection)
                    threading.Thread(target=behave, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for connection in held:
            connection.close()


def endless(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"vllm:num_requests_running 1e999\n" * 1000)


def garbage(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"\x00\xff" * 100_000)


def silent(_connection: socket.socket) -> None:
    return


@pytest.mark.parametrize("behave", [endless, garbage, silent])
def test_a_hostile_replica_is_out_and_disturbs_no_other(make, start, behave):
    good = start()
    with hostile(behave) as port:
        agent = make("lb1")
        agent.members({"a/r0": good.port, "x/r0": port})
        agent.start()
        assert agent.await_states(a_r0="up") < 5
        agent.await_states(a_r0="up", x_r0="down")
        good.fault("error_500")
        await_that(lambda: agent.row("a/r0")["reason"], "the other one is still judged")
        assert agent.states()["a/r0"] == "up", "the last one is never judged out"


def test_a_port_that_is_taken_is_a_problem_and_no_end(make, start):
    fake = start()
    agent = make("lb1")
    with socket.create_server(("127.0.0.1", agent.port)):
        agent.members({"a/r0": fake.port})
        agent.start()
        agent.await_states(a_r0="up")
        await_that(
            lambda: any("cannot be listened on" in line["reason"] for line in agent.events("problem")),
            "its log says that the port is taken",
        )


def test_it_ends_when_it_is_told_to(make):
    agent = make("lb1")
    agent.members({"a/r0": free_port()})
    agent.start()
    assert agent.kill(signal.SIGTERM) == 0
    assert [line["event"] for line in agent.events()][-1] == "stop"
    assert json.loads((agent.places["state"] / "view.json").read_text())["peers"][0]["state"] == "down"
