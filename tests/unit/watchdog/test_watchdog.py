"""The watchdog of a server against the fake vLLM and agents' real ports; only systemd and its journal are played."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import pathlib
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.peer import PeerServer
from ansible_collections.llmops.vllm.plugins.module_utils._agent.recovery import Recovery
from ansible_collections.llmops.vllm.plugins.module_utils._release import meaning as release_meaning
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands, config, look, main
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.commands import Done

from tests.fakes.vllm.running import KEY, Fake, await_that

RESTART = [["systemctl", "kill"], ["systemctl", "reset-failed"], ["systemctl", "restart"]]


class Agents:
    """Ports of agents in a thread of their own; what they tell can be changed at any moment."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.keys: list[list[str]] = []
        self.ports: list[int] = []
        self._servers: list[PeerServer] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def add(self, **payload: Any) -> dict[str, Any]:
        """Start one; returns what it tells."""
        name = f"lb{len(self.ports) + 1}"
        told: dict[str, Any] = {"name": name, "synced": True, "admin": {}, "leases": {}, "permits": [], "wedged": {}}
        told |= payload
        keys = [KEY]
        server = PeerServer(lambda: "", lambda: told, lambda: keys)
        port = asyncio.run_coroutine_threadsafe(server.start("127.0.0.1", 0), self._loop).result(10)
        self.told.append(told)
        self.keys.append(keys)
        self.ports.append(port)
        self._servers.append(server)
        return told

    def close(self) -> None:
        """End all."""
        for server in self._servers:
            asyncio.run_coroutine_threadsafe(server.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Host:
    """A server: one replica that really runs, its release's configuration, and a systemd that does what it is told."""

    def __init__(self, base: pathlib.Path, fake: Fake, agents: Agents) -> None:
        self.base, self.fake, self.agents = base, fake, agents
        self.calls: list[list[str]] = []
        self.lines: list[dict[str, Any]] = []
        self.streams: list[http.client.HTTPResponse] = []  # held open: an engine forgets the request of a lost client
        self.state, self.age, self.blocked = ("active", "running"), 500.0, ""
        release = base / "etc" / "r0" / "current"
        release.mkdir(parents=True)
        (release / "config.yaml").write_text(
            release_meaning.config_text({"port": fake.port, "api-key": [KEY, "x" * 32]})
        )
        (base / "run").mkdir()

    def turn(self) -> list[dict[str, Any]]:
        """One turn, as the timer starts it; returns what it logged."""
        before = len(self.lines)
        path = self.base / "config.json"
        own = {"id": "gpu1/r0", "name": "r0", "unit": "vllm@r0.service", "pool": "chat", "url": self.fake.url}
        document = {"api": 1, "replicas": [own], "releases": str(self.base / "etc"), "state": str(self.base / "state")}
        ports = enumerate(self.agents.ports, 1)
        document["agents"] = [{"name": f"lb{n}", "address": "127.0.0.1", "port": port} for n, port in ports]
        path.write_text(json.dumps({**document, "run": str(self.base / "run")}))
        main.Watchdog(config.load(path), self.run, lambda line: self.lines.append(json.loads(line))).turn()
        return self.lines[before:]

    def run(self, command: Sequence[str], seconds: float) -> Done:
        """systemd and journal are played, all else is real."""
        self.calls.append(list(command))
        if command[0] == "journalctl":
            return Done(0, f"the journal of {command[2]}: Authorization {KEY}\n" * 3)
        if command[0] != "systemctl":
            return commands.run(command, seconds)
        if command[1] == "show":
            pid = self.fake.process.pid if self.fake.process.poll() is None else 0
            since = int((time.monotonic() - self.age) * 1e6)
            text = f"ActiveState={self.state[0]}\nSubState={self.state[1]}\nMainPID={pid}\nControlGroup=\n"
            return Done(0, f"{text}ActiveEnterTimestampMonotonic={since}\nNRestarts=0\n")
        if command[1] == "kill":
            for pid in [*self.fake.children().values(), self.fake.process.pid]:
                os.kill(pid, signal.SIGKILL)
        return Done(1, "", self.blocked) if command[1] == "restart" and self.blocked else Done(0, "")

    def deeds(self) -> list[list[str]]:
        """What was done to the unit."""
        return [call[:2] for call in self.calls if call[0] == "systemctl" and call[1] != "show"]

    def records(self) -> list[pathlib.Path]:
        """Flight records."""
        return sorted((self.base / "state" / "incidents").glob("*"))


@pytest.fixture
def agents() -> Iterator[Agents]:
    found = Agents()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def host(tmp_path: pathlib.Path, start: Callable[..., Fake], agents: Agents) -> Host:
    return Host(tmp_path, start(), agents)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "COMPLETION_SECONDS", 1.0)


def freeze(host: Host) -> None:
    """Bring work and stop the engine under it."""
    host.streams.append(host.fake.stream(4000))
    await_that(lambda: host.fake.busy()[0] > 0, "a request runs")
    host.fake.fault("freeze_engine")


def permit(path: pathlib.Path, replica: str = "gpu1/r0") -> list[dict[str, Any]]:
    """A permit, as an agent makes it."""
    recovery = Recovery(60, 3, path / f"{time.monotonic_ns()}.json")
    state: dict[str, Any] = {"pools": {replica: "chat"}, "drained": set(), "leased": set(), "up": set()}
    recovery.consider(wedged={replica: 65.0}, arbiter=True, **state)
    return recovery.permits()


def allow(host: Host, **changes: Any) -> dict[str, Any]:
    """An agent that sees the replica wedged and permits its restart."""
    given = {"wedged": {"gpu1/r0": 65.0}, "permits": permit(host.base), **changes}
    return host.agents.add(**given)


def test_a_frozen_engine_is_recorded_killed_and_started_once(host: Host) -> None:
    told = allow(host)
    host.agents.add(wedged={"gpu1/r0": 62.0})
    freeze(host)
    frozen = host.fake.children()["VLLM::EngineCor"]
    (line,) = host.turn()
    incident = told["permits"][0]["incident"]
    assert (line["event"], line["incident"], line["replica"]) == ("restarted", incident, "gpu1/r0")
    assert line["reason"] == (
        "wedged for 65 s: it has work and generates nothing; this host: its engine makes no step while there is work"
    )
    assert line["numbers"]["running"] == 1
    assert host.deeds() == RESTART
    assert host.fake.process.poll() is not None
    # the same permit once more, as long as it lasts: another process runs by now
    assert host.turn() == []
    assert host.deeds() == RESTART

    (record,) = host.records()
    assert record.name == incident
    assert line["record"] == str(record)
    assert stat.S_IMODE(record.stat().st_mode) == 0o700
    texts = {path.stem: path.read_text() for path in record.iterdir()}
    assert set(texts) == {
        "incident", "journal", "kernel", "unit", "processes", "threads", "metrics", "sockets", "memory", "gpu",
    }  # fmt: skip
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in record.iterdir())
    assert 'vllm:num_requests_running{engine="0",model_name="m"} 1.0' in texts["metrics"]
    assert "VLLM::EngineCor" in texts["processes"]
    assert f"-- thread {frozen} VLLM::EngineCor state T wchan" in texts["threads"]
    assert f":{host.fake.port}" in texts["sockets"]
    assert "MemAvailable" in texts["memory"]
    assert "NRestarts=0" in texts["unit"]
    assert "the journal of vllm@r0.service: Authorization VALUE_HIDDEN" in texts["journal"]
    assert KEY not in "".join(texts.values())
    facts = json.loads(texts["incident"])
    assert facts["agents"]["lb2"] == {"wedged": {"gpu1/r0": 62.0}, "synced": True}
    assert facts["host_saw"]["completion"] == "timeout"
    journal = next(call for call in host.calls if call[0] == "journalctl")
    assert journal[1:5] == ["-u", "vllm@r0.service", "-n", "500"]


def test_a_part_that_fails_is_a_note(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(host)
    freeze(host)
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = host.turn()
    assert line["event"] == "restarted"
    assert line["failed_parts"] == {
        "gpu": "OSError: nvidia-smi is not on this host", "processes": "OSError: ps is not on this host"
    }  # fmt: skip
    (record,) = host.records()
    assert (record / "gpu.txt").read_text() == "(OSError: nvidia-smi is not on this host)\n"
    assert f"{host.fake.port:04X}" in (record / "sockets.txt").read_text()


def test_an_engine_that_froze_without_work_is_found_by_a_completion(host: Host) -> None:
    allow(host)
    host.fake.fault("freeze_worker")
    (line,) = host.turn()
    assert (line["event"], line["numbers"]["completion"]) == ("restarted", "timeout")


def test_a_server_that_accepts_and_never_answers_is_wedged(host: Host) -> None:
    allow(host)
    host.fake.fault("hang_after_accept")
    (line,) = host.turn()
    assert line["event"] == "restarted"
    assert line["reason"].endswith("it accepts connections and answers none")
    assert "metrics" in line["failed_parts"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"admin": {"gpu1/r0": {"state": "drained"}}}, "lb2: the replica is drained"),
        ({"leases": {"chat": {"holder": "rollout", "expires_in": 9}}}, "lb2: pool chat is under a rollout lease"),
        ({"wedged": {}}, "lb2: it does not see the replica wedged"),
    ],
)
def test_one_agent_that_objects_keeps_it(host: Host, changes: dict[str, Any], words: str) -> None:
    allow(host)
    host.agents.add(**{"wedged": {"gpu1/r0": 62.0}, **changes})
    freeze(host)
    (line,) = host.turn()
    assert line["event"] == "refused"
    assert words in line["reason"]
    assert host.turn() == []  # said once
    assert host.deeds() == []
    assert host.records() == []


@pytest.mark.parametrize("why", ["another host", "expired", "nobody answers", "stranger", "replayed"])
def test_what_is_no_permit_is_not_acted_upon(host: Host, why: str) -> None:
    told = allow(host)
    freeze(host)
    if why == "another host":
        told["permits"] = permit(host.base, "gpu2/r0")
    elif why == "expired":
        told["permits"][0]["expires_in"] = 0.0
    elif why == "nobody answers":
        host.agents.ports[0] = 1
    elif why == "stranger":
        host.agents.keys[0][0] = "s" * 32
    else:
        host.agents.ports[0] = replayer(host.agents.ports[0])
    lines = host.turn()
    assert host.deeds() == []
    assert [line["event"] for line in lines] == ([] if why in ("another host", "expired") else ["agent_silent"])
    if why in ("stranger", "replayed"):
        assert "no key here fits the signature" in lines[0]["reason"]


def replayer(port: int) -> int:
    """Somebody on the way, who gives an answer that an agent gave before to every question; returns their port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", f"/peer?nonce={'0' * 32}")
    recorded = connection.getresponse().read()
    connection.close()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(recorded)

        def log_message(self, *_args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    return int(server.server_address[1])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("none", "this host sees no wedge: it answered a completion"),
        ("slow", "this host sees no wedge: its engine makes steps"),
        ("error_500", "this host sees no wedge: it has no work, and refuses some"),
        ("dead", "this host sees no wedge: its /metrics cannot be read"),
        ("stopped", "vllm@r0.service is activating/auto-restart"),
        ("young", "it has been started since the agents saw it wedged"),
    ],
)
def test_the_host_looks_for_itself(host: Host, fault: str, words: str) -> None:
    allow(host)
    if fault == "dead":
        host.fake.kill()
    elif fault == "stopped":
        host.state = ("activating", "auto-restart")
    elif fault == "young":
        host.age = 30
    elif fault == "slow":
        host.streams.append(host.fake.stream(4000))
        host.fake.fault("slow", ttft_factor=10000, itl_factor=20)
    else:
        host.fake.fault(fault)
    (line,) = host.turn()
    assert line["event"] == "refused"
    assert words in line["reason"]
    assert host.deeds() == []


def test_a_drain_while_the_record_is_made_is_heeded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    told = allow(host)
    freeze(host)
    save = main.record.save

    def drained_meanwhile(*args: Any) -> Any:
        told["admin"] = {"gpu1/r0": {"state": "drained"}}
        return save(*args)

    monkeypatch.setattr(main.record, "save", drained_meanwhile)
    (line,) = host.turn()
    assert "lb1: the replica is drained" in line["reason"]
    assert host.deeds() == []


def test_three_restarts_in_an_hour_are_enough_whatever_agents_say(host: Host) -> None:
    told = allow(host)
    now = time.monotonic()
    handled = {f"20261125T06153{n}Z-gpu1-r0-000{n}": {"replica": "gpu1/r0", "at": now - 1000 * n} for n in range(3)}
    (host.base / "run" / "memory.json").write_text(json.dumps({"handled": handled, "said": {}}))
    freeze(host)
    (line,) = host.turn()
    assert "3 restarts in this hour were enough" in line["reason"]
    assert host.deeds() == []
    handled["20261125T061532Z-gpu1-r0-0002"]["at"] = now - 3601
    (host.base / "run" / "memory.json").write_text(json.dumps({"handled": handled, "said": {}}))
    told["permits"] = permit(host.base)
    assert [line["event"] for line in host.turn()] == ["restarted"]


def test_what_cannot_be_remembered_is_not_done(host: Host) -> None:
    allow(host)
    freeze(host)
    (host.base / "run" / ".memory.json.new").mkdir()
    (line,) = host.turn()
    assert "cannot remember" in line["reason"]
    assert host.deeds() == []


def test_a_record_that_cannot_be_written_keeps_nobody_from_serving(host: Host) -> None:
    allow(host)
    freeze(host)
    (host.base / "state").write_text("in the way")
    (line,) = host.turn()
    assert line["event"] == "restarted"
    assert "state" in line["record_problem"]


def test_a_start_that_systemd_refuses_is_told(host: Host) -> None:
    allow(host)
    freeze(host)
    host.blocked = "systemctl restart: ended with code 1"
    (line,) = host.turn()
    assert (line["event"], line["reason"]) == ("restart_failed", "systemctl restart: ended with code 1")


def test_an_agent_that_comes_and_goes_is_told_once_each(host: Host) -> None:
    host.agents.add()
    port, host.agents.ports[0] = host.agents.ports[0], 1
    (line,) = host.turn()
    assert (line["event"], line["agent"]) == ("agent_silent", "lb1")
    assert host.turn() == []
    host.agents.ports[0] = port
    assert [line["event"] for line in host.turn()] == ["agent_answers"]


def test_a_configuration_that_is_none_ends_with_status_2(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    for text in ("", "[]", '{"api": 2}', '{"api": 1, "agents": [{"name": "lb1"}], "replicas": []}'):
        path.write_text(text)
        assert main.main(["", str(path)]) == 2
        assert "run the role vllm again" in capsys.readouterr().err
    assert main.main(["", str(tmp_path / "missing")]) == 2
