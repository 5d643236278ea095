"""The control socket, asked by the real client over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import socket
import stat
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import AgentError, Control, Waited
from ansible_collections.llmops.vllm.plugins.module_utils._agent.control import ControlServer

from tests.fakes.agent import Running


@pytest.fixture
def control(agent: Running) -> Control:
    return Control(str(agent.path))


def raw(agent: Running, data: bytes) -> tuple[int, Any]:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(agent.path))
        link.sendall(data)
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    head, _gap, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def post(path: str, body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def test_drain_and_undrain(agent: Running, control: Control) -> None:
    done = control.set_state(["g1/r0"], "drained", "kernel", "alice")
    assert (done["changed"], done["before"], done["after"]) == (True, {"g1/r0": "active"}, {"g1/r0": "drained"})
    row = control.status()["replicas"][0]
    assert (row["administrative"], row["in_rotation"], row["note"]) == ("drained", False, "kernel (alice)")
    assert not control.set_state(["g1/r0"], "drained")["changed"]
    assert control.set_state(["g1/r0"], "active")["after"] == {"g1/r0": "active"}
    assert agent.reports == []


def test_below_the_minimum_is_refused_unless_forced(control: Control) -> None:
    control.set_state(["g1/r0"], "drained")
    with pytest.raises(AgentError) as told:
        control.set_state(["g2/r0"], "drained")
    assert told.value.status == 409
    assert "pool chat would have 0 of its replicas in rotation, its minimum is 1" in str(told.value)
    assert "in rotation now: g2/r0. Put another one back first, or force it" in str(told.value)
    assert control.set_state(["g2/r0"], "drained", force=True)["changed"]


def test_a_whole_pool_at_once_is_refused(control: Control) -> None:
    with pytest.raises(AgentError, match="pool chat would have 0"):
        control.set_state(["g1/r0", "g2/r0"], "drained")
    assert {row["administrative"] for row in control.status()["replicas"]} == {"active"}


def test_one_that_is_down_anyway_may_be_drained(agent: Running, control: Control) -> None:
    agent.world["replicas"]["g1/r0"]["health"] = "down"
    agent.world["minimum"] = 2
    assert control.set_state(["g1/r0"], "drained")["changed"]


def test_a_lease_keeps_others_from_the_pool_and_force_does_not_help(control: Control) -> None:
    assert control.lease("chat", "rollout-1", 120)["lease"]["holder"] == "rollout-1"
    for state in ("drained", "active"):
        control.set_state(["g2/r0"], "active" if state == "drained" else "drained", by="rollout-1")
        with pytest.raises(AgentError, match="pool chat is leased by rollout-1 for 1[12]\\d s more") as told:
            control.set_state(["g2/r0"], state, by="alice", force=True)
        assert told.value.status == 409
    with pytest.raises(AgentError, match="leased by rollout-1"):
        control.lease("chat", "rollout-2", 120)
    assert control.release("chat", "rollout-1")["lease"] is None
    assert control.set_state(["g2/r0"], "active", by="alice")["changed"]


def test_an_engine_that_does_not_confirm_is_told(agent: Running, control: Control) -> None:
    agent.backend.confirms = False
    with pytest.raises(AgentError, match="did not confirm") as told:
        control.set_state(["g1/r0"], "drained")
    assert told.value.status == 503


def test_unknown_replicas_are_answered_with_those_that_exist(control: Control) -> None:
    with pytest.raises(AgentError, match="g9/r0: no such member; there are g1/r0") as told:
        control.set_state(["g1/r0", "g9/r0"], "drained")
    assert told.value.status == 404
    with pytest.raises(AgentError, match="g9/r&0 is no member"):
        control.explain("g9/r&0")


def test_explain_and_presence(control: Control) -> None:
    assert control.explain("g1/r0")["numbers"] == {"ttft_p50": 0.123}
    assert control.set_balancer("away", "alice", "kernel")["changed"]
    assert control.status()["balancer"]["may_hold_address"] is False
    assert not control.set_balancer("away")["changed"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/state", b"{", "no JSON"),
        ("/v1/state", b"[" * 100_000, "no JSON"),
        ("/v1/state", [], "no JSON object"),
        ("/v1/state", {"replicas": ["a"]}, "missing: state"),
        ("/v1/state", {"replicas": ["a"], "state": "gone"}, "state is 'gone': active or drained is wanted"),
        ("/v1/state", {"replicas": [], "state": "active"}, "replicas must be a list of ids"),
        ("/v1/state", {"replicas": "a", "state": "active"}, "replicas must be a list of ids"),
        ("/v1/state", {"replicas": [1], "state": "active"}, "each of replicas must be a text"),
        ("/v1/state", {"replicas": ["a"], "state": "active", "force": "yes"}, "force is 'yes': true or false"),
        ("/v1/state", {"replicas": ["a"], "state": "active", "reason": "\x1b[2J"}, "reason must be a text of one line"),
        ("/v1/state", {"replicas": ["a"], "state": "active", "forced": True}, "unknown key 'forced': known are by"),
        ("/v1/leases", {"pool": "chat", "holder": "a", "seconds": 0}, "seconds is 0: a number above 0, up to 3600"),
        ("/v1/leases", {"pool": "chat", "holder": "", "seconds": 1}, "holder must be a text of one line, not empty"),
        ("/v1/leases/release", {"pool": "chat"}, "missing: holder"),
        ("/v1/balancer", {"state": "gone"}, "state is 'gone'"),
    ],
)
def test_a_body_that_is_not_understood_changes_nothing(agent: Running, path: str, body: Any, words: str) -> None:
    status, answer = raw(agent, post(path, body))
    assert (status, answer["api"]) == (400, 1)
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /v2/status HTTP/1.1\r\n\r\n", 404),
        (b"POST /v1/status HTTP/1.1\r\n\r\n", 404),
        (b"GET /v1/replicas HTTP/1.1\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"POST /v1/state HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", 400),
    ],
)
def test_other_requests_are_refused(agent: Running, data: bytes, status: int) -> None:
    assert raw(agent, data)[0] == status


def test_what_nobody_foresaw_ends_one_request_and_is_reported(agent: Running, control: Control) -> None:
    kept = agent.world.pop("replicas")
    with pytest.raises(AgentError, match="KeyError: 'replicas': see journalctl -u llm-agent"):
        control.status()
    assert "Traceback" in agent.reports[0]
    agent.world["replicas"] = kept
    assert control.status()["api"] == 1


class Slow:
    """A backend that takes its time over a drain."""

    def __init__(self) -> None:
        self.done = threading.Event()

    async def set_state(self, replicas: Sequence[str], *_rest: Any, **_more: Any) -> dict[str, Any]:
        await asyncio.sleep(0.5)
        self.done.set()
        return {"changed": True}


def test_a_slow_change_is_told_and_finished_all_the_same(tmp_path: pathlib.Path) -> None:
    slow = Slow()
    with Running(tmp_path / "slow", {}).within(0.1) as agent:
        agent.backend.set_state = slow.set_state  # type: ignore[method-assign]
        with pytest.raises(AgentError, match="not done after 0.1 s, and still being worked on") as told:
            Control(str(agent.path)).set_state(["g1/r0"], "drained")
        assert told.value.status == 503
        assert slow.done.wait(5)


# --- the socket


def test_only_owner_and_group_may_ask(agent: Running) -> None:
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o660


def test_the_socket_of_a_killed_agent_is_taken_over_and_removed_at_the_end(tmp_path: pathlib.Path) -> None:
    base = tmp_path / "again"
    base.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(base / "control.sock"))
    with Running(base, {"replicas": {}}) as agent:
        assert Control(str(agent.path)).status()["replicas"] == []
    assert not agent.path.exists()


def test_a_file_in_the_place_of_the_socket_is_not_removed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        asyncio.run(ControlServer(Slow(), str(tmp_path / "s")).start())  # type: ignore[arg-type]
    assert (tmp_path / "s").read_text() == "mine"


def test_no_agent_says_what_to_look_at(tmp_path: pathlib.Path) -> None:
    for left in (False, True):
        path = tmp_path / "control.sock"
        if left:
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        with pytest.raises(AgentError, match="the agent does not run: .*systemctl status llm-agent"):
            Control(str(path)).status()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_is_told_who_may(agent: Running) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        for folder in agent.path.parents:
            if folder.owner() == "root" and str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            Control(str(agent.path)).status()
        except AgentError as problem:
            os.write(write, str(problem).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"may not be opened: be root, or a member of the group llm-agent" in os.read(read, 4096)
    os.close(read)
    os.close(write)


def test_another_version_of_the_agent_names_both(agent: Running, control: Control) -> None:
    agent.backend.api = 2
    with pytest.raises(AgentError, match="the agent on this host speaks API 2, this collection 1"):
        control.status()


def test_an_agent_that_hangs_is_left(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "s"))
        mute.listen()
        with pytest.raises(AgentError, match="no answer within 0.2 s: journalctl -u llm-agent"):
            Control(str(tmp_path / "s"), 0.2).status()


# --- waiting


class Turns:
    """Time that passes with each sleep, and what happens then."""

    def __init__(self, *deeds: Any) -> None:
        self.now = 0.0
        self.deeds = list(deeds)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.deeds:
            self.deeds.pop(0)()

    def wait(self, control: Control, replicas: Sequence[str], limit: float) -> Waited:
        return control.wait_idle(replicas, limit, clock=lambda: self.now, sleep=self.sleep)


def test_a_wait_ends_when_nothing_is_in_flight_twice_in_a_row(agent: Running, control: Control) -> None:
    row = agent.world["replicas"]["g1/r0"]
    row["inflight"] = 2
    control.set_state(["g1/r0"], "drained")
    turns = Turns(*(lambda n=n: row.update(inflight=n) for n in (1, 0, 1, 0)))
    waited = turns.wait(control, ["g1/r0"], 60)
    assert (waited.idle, waited.elapsed, turns.deeds) == (True, 1.25, [])


def test_a_wait_that_runs_out_tells_what_is_left(agent: Running, control: Control) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 2
    agent.world["replicas"]["g3/r0"]["inflight"] = None
    control.set_state(["g1/r0", "g3/r0"], "drained")
    waited = Turns().wait(control, ["g1/r0", "g3/r0"], 2)
    assert (waited.idle, waited.elapsed) == (False, 2.0)
    assert waited.words() == "g1/r0 2, g3/r0 not known"


def test_a_wait_ends_when_somebody_puts_the_replica_back(agent: Running, control: Control) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 2
    control.set_state(["g1/r0"], "drained")
    with pytest.raises(AgentError, match="g1/r0 is active: somebody put it back"):
        Turns(lambda: control.set_state(["g1/r0"], "active")).wait(control, ["g1/r0"], 60)


def test_a_wait_ends_when_the_replica_leaves(agent: Running, control: Control) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 2
    control.set_state(["g1/r0"], "drained")
    with pytest.raises(AgentError, match="g1/r0 is no member any more"):
        Turns(lambda: agent.world["replicas"].pop("g1/r0")).wait(control, ["g1/r0"], 60)


def test_a_wait_outlasts_a_restart_of_the_agent_and_no_more(agent: Running, control: Control) -> None:
    control.set_state(["g1/r0"], "drained")
    hidden = agent.path.with_name("hidden")
    agent.world["replicas"]["g1/r0"]["inflight"] = 1
    turns = Turns(
        lambda: agent.path.rename(hidden),
        lambda: hidden.rename(agent.path),
        lambda: agent.world["replicas"]["g1/r0"].update(inflight=0),
    )
    assert turns.wait(control, ["g1/r0"], 60).idle
    agent.world["replicas"]["g1/r0"]["inflight"] = 1
    with pytest.raises(AgentError, match="the agent does not run"):
        Turns(lambda: agent.path.rename(hidden)).wait(control, ["g1/r0"], 60)
    hidden.rename(agent.path)


def test_many_ask_at_once(agent: Running, control: Control) -> None:
    began, failed = time.monotonic(), []

    def ask() -> None:
        try:
            control.status()
        except AgentError as problem:
            failed.append(problem)

    askers = [threading.Thread(target=ask) for _turn in range(30)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(20)
    assert failed == [] and time.monotonic() - began < 20
