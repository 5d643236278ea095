"""Stopping and starting a unit: the logic with a clock that is turned by hand, the module against real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _systemd
from ansible_collections.llmops.vllm.plugins.module_utils._systemd import SystemdError, UnitState
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.leftovers import Leftovers
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.processes import Process
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.unit import Change, NotDone, Outcome, UnitError, Wish

from tests.fakes import systemd
from tests.fakes.vllm.running import await_that, configure

Run = Callable[..., Any]
NAME = "vllm@r0.service"
SLEEP = ["/bin/sleep", "600"]
RUNS = UnitState(NAME, "loaded", "active", "running", main_pid=10, stop_seconds=90.0)
STOPPING = replace(RUNS, active="deactivating", sub="stop-sigterm", job=7, active_until=1000.0, inactive_until=500.0)
DEAD = replace(RUNS, active="inactive", sub="dead", main_pid=0, exit_code="1")
KILLED = replace(DEAD, active="failed", sub="failed", result="signal", exit_code="2", exit_status=9)
LOADS = replace(RUNS, active="activating", sub="start-pre")
CRASHED = replace(RUNS, active="activating", sub="auto-restart", exit_code="1", exit_status=1, main_pid=0)
QUEUED = replace(DEAD, job=8)
ABSENT = UnitState(NAME, "not-found", "inactive", "dead")


class Left(Leftovers):
    """What is left as a list says, look by look, of which the last stays."""

    def __init__(self, *found: list[str]) -> None:
        super().__init__()
        self.looks, self.remembered = list(found) or [[]], [0]

    def remember(self, state: UnitState) -> None:
        self.remembered.append(state.main_pid)

    def alive(self) -> list[Process]:
        return [Process(10, 777, "VLLM::Worker", "D", 2**30)]

    def found(self) -> list[str]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


class Lab:
    """A systemd as a list says, look by look, of which the last stays. Sleep turns the clock."""

    def __init__(self, *looks: UnitState, refuses: Sequence[str] = ()) -> None:
        self.now, self.looks, self.refuses = 1000.0, list(looks), refuses
        self.calls: list[str] = []
        self.left = Left()

    def show(self, unit: str) -> UnitState:
        assert unit == NAME
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def control(self, *words: str) -> None:
        self.calls.append(" ".join(words))
        if words[0] in self.refuses:
            raise SystemdError(f"systemctl {words[0]}: ended with code 1: no")

    def journal_tail(self, unit: str) -> str:
        return f"the end of the journal of {unit}"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def change(self, state: str, **wish: Any) -> Change:
        options = {"interval": 1.0, **wish}
        return Change(Wish(NAME, state, **options), self.left, systemd=self, clock=lambda: self.now, sleep=self.sleep)

    def stop(self, **wish: Any) -> Outcome:
        return self.change("stopped", **wish).bring_about()

    def start(self, **wish: Any) -> Outcome:
        return self.change("started", **wish).bring_about()


def for_seconds(seconds: int, state: UnitState) -> list[UnitState]:
    return [state] * seconds


# --- stop


def test_a_stop_is_waited_for() -> None:
    lab = Lab(RUNS, *for_seconds(20, STOPPING), DEAD)
    found = lab.stop()
    assert lab.calls == [f"stop --no-block -- {NAME}"]
    assert (found.changed, found.done, found.seconds, found.hard) == (True, True, 20, False)
    assert (found.before, found.after) == ("active/running", "inactive/dead")
    assert found.msg == f"{NAME} is inactive/dead, its process exited with code 0, and nothing of it is left"
    assert found.diff == {"before": f"{NAME}: started\n", "after": f"{NAME}: stopped\n"}


def test_processes_are_remembered_before_the_stop_and_at_each_look() -> None:
    lab = Lab(RUNS, replace(STOPPING, main_pid=11), DEAD)
    lab.stop()
    assert lab.left.remembered == [0, 10, 11, 0]


@pytest.mark.parametrize("before", [LOADS, CRASHED, STOPPING, QUEUED])
def test_what_starts_or_is_about_to_is_stopped(before: UnitState) -> None:
    lab = Lab(before, DEAD)
    assert lab.stop().changed and lab.calls == [f"stop --no-block -- {NAME}"]


@pytest.mark.parametrize("before", [DEAD, KILLED])
def test_what_is_stopped_is_left_alone(before: UnitState) -> None:
    lab = Lab(before)
    found = lab.stop(hard_after=1)
    assert lab.calls == []
    assert (found.changed, found.done, found.hard, found.before) == (False, True, False, found.after)
    assert found.diff["before"] == found.diff["after"]


@pytest.mark.parametrize(
    ("before", "wish", "seconds"),
    [
        (RUNS, {}, 105),
        (replace(RUNS, stop_seconds=130.0), {}, 145),
        (RUNS, {"timeout": 30}, 30),
        (RUNS, {"timeout": 30, "return_after": 30}, 30),
        (replace(STOPPING, active_until=990.0), {"timeout": 30}, 20),
        (replace(STOPPING, active_until=0.0, inactive_until=995.0), {"timeout": 30}, 25),
        (replace(STOPPING, active_until=0.0, inactive_until=0.0), {"timeout": 30}, 30),
    ],
)
def test_a_stop_that_takes_too_long_fails(before: UnitState, wish: dict[str, Any], seconds: int) -> None:
    lab = Lab(before, STOPPING)
    with pytest.raises(NotDone) as told:
        lab.stop(**wish)
    assert lab.now - 1000 == seconds
    assert re.match(
        f"{NAME} is deactivating/stop-sigterm: not stopped after [0-9]+ s, and systemd goes", str(told.value)
    )
    assert "process 10 (VLLM::Worker, state D, 1024 MiB) waits in the kernel" in str(told.value)
    assert told.value.outcome.changed and not told.value.outcome.done


def test_a_unit_that_may_take_for_ever_is_waited_for() -> None:
    lab = Lab(*for_seconds(5000, replace(RUNS, stop_seconds=float("inf"), job=7)), DEAD)
    assert lab.stop().seconds > 4000


def test_it_is_killed_once_when_that_is_wished() -> None:
    lab = Lab(RUNS, *for_seconds(15, STOPPING), KILLED)
    found = lab.stop(hard_after=10)
    assert lab.calls == [f"stop --no-block -- {NAME}", f"kill --signal=SIGKILL -- {NAME}"]
    assert found.hard and found.done and found.notes == []


def test_a_later_call_kills_when_the_time_since_the_begin_is_over() -> None:
    lab = Lab(replace(STOPPING, active_until=985.0), STOPPING, KILLED)
    assert lab.stop(hard_after=10).hard
    assert lab.calls[-1] == f"kill --signal=SIGKILL -- {NAME}"


def test_one_that_ends_in_time_is_not_killed() -> None:
    lab = Lab(RUNS, *for_seconds(9, STOPPING), DEAD)
    assert not lab.stop(hard_after=10).hard and len(lab.calls) == 1


def test_one_that_ends_at_the_moment_of_the_kill_has_ended() -> None:
    lab = Lab(RUNS, *for_seconds(11, STOPPING), DEAD, refuses=["kill"])
    found = lab.stop(hard_after=10)
    assert found.done and not found.hard and found.notes == ["systemctl kill: ended with code 1: no"]


def test_what_systemd_killed_is_told() -> None:
    assert Lab(RUNS, STOPPING, KILLED).stop().hard


def test_a_start_by_somebody_else_ends_the_wait() -> None:
    lab = Lab(RUNS, STOPPING, RUNS)
    with pytest.raises(NotDone, match=f"{NAME} is active/running: somebody has started it again"):
        lab.stop()
    assert lab.now == 1001


def test_a_refused_stop_is_told() -> None:
    with pytest.raises(SystemdError, match="systemctl stop"):
        Lab(RUNS, refuses=["stop"]).stop()


def test_leftovers_are_waited_for() -> None:
    lab = Lab(RUNS, DEAD)
    lab.left = Left(["a"], ["a"], ["b"], [])
    assert lab.stop().seconds == 3


@pytest.mark.parametrize(
    ("looks", "seconds", "words"),
    [
        ([RUNS, *for_seconds(5, STOPPING), DEAD], 25, "20 s after it stopped"),
        ([RUNS, *for_seconds(5, STOPPING), replace(DEAD, inactive_since=1.0)], 25, "20 s after it stopped"),
        ([replace(DEAD, inactive_since=988.0)], 8, "20 s after it stopped"),
        ([replace(DEAD, inactive_since=400.0)], 0, "600 s after it stopped"),
        ([DEAD], 20, "20 s after it stopped"),
    ],
)
def test_leftovers_that_stay_fail(looks: list[UnitState], seconds: int, words: str) -> None:
    lab = Lab(*looks)
    lab.left = Left(["process 10 (x) has not ended: end it (kill -9 10)", "another"])
    with pytest.raises(NotDone) as told:
        lab.stop(leftover_timeout=20)
    assert lab.now - 1000 == seconds
    tail = f"not all of it is gone {words}: process 10 (x) has not ended: end it (kill -9 10); another"
    assert str(told.value).endswith(tail)


# --- return in between


def test_it_returns_in_between_and_the_stop_goes_on() -> None:
    lab = Lab(RUNS, STOPPING)
    found = lab.stop(return_after=7.5)
    assert (found.changed, found.done, found.seconds, found.after) == (True, False, 7.5, "deactivating/stop-sigterm")
    assert found.msg == f"{NAME} is deactivating/stop-sigterm: it has not stopped yet"


def test_it_returns_in_between_while_something_is_left() -> None:
    lab = Lab(DEAD)
    lab.left = Left(["a", "b"])
    found = lab.stop(return_after=5)
    assert (found.changed, found.done, found.seconds) == (False, False, 5) and found.msg.endswith(": a; b")


# --- start


@pytest.mark.parametrize(
    ("before", "verb"), [(DEAD, "start"), (KILLED, "start"), (STOPPING, "start"), (CRASHED, "restart")]
)
def test_a_start_is_over_once_systemd_has_begun_it(before: UnitState, verb: str) -> None:
    lab = Lab(before, QUEUED, LOADS)
    found = lab.start()
    assert lab.calls == ["daemon-reload", f"reset-failed -- {NAME}", f"{verb} --no-block -- {NAME}"]
    assert (found.changed, found.done, found.after, found.seconds) == (True, True, "activating/start-pre", 1)
    assert found.diff["after"] == f"{NAME}: started\n"


@pytest.mark.parametrize("before", [RUNS, LOADS])
def test_what_runs_or_loads_is_left_alone(before: UnitState) -> None:
    lab = Lab(replace(before, restarts=3))
    found = lab.start()
    assert lab.calls == [] and (found.changed, found.done, found.restarts) == (False, True, 3)


def test_a_unit_that_is_not_loaded_has_no_failures_to_forget() -> None:
    assert Lab(DEAD, RUNS, refuses=["reset-failed"]).start().done


def test_a_refused_start_is_told() -> None:
    with pytest.raises(SystemdError, match="systemctl start"):
        Lab(DEAD, refuses=["start"]).start()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(KILLED, result="start-limit-hit"), "is failed/failed (start-limit-hit)"),
        (CRASHED, "is activating/auto-restart, its process exited with code 1"),
        (DEAD, "is inactive/dead"),
    ],
)
def test_a_start_that_fails_at_once_tells_its_journal(state: UnitState, words: str) -> None:
    with pytest.raises(NotDone) as told:
        Lab(DEAD, QUEUED, state).start()
    assert words in str(told.value)
    assert str(told.value).endswith(f"Mend what the end of its journal tells:\nthe end of the journal of {NAME}")
    assert told.value.outcome.changed


def test_a_start_that_waits_returns_in_between_and_fails_in_the_end() -> None:
    assert not Lab(STOPPING, replace(STOPPING, job=8)).start(return_after=5).done
    lab = Lab(replace(STOPPING, active_until=990.0), STOPPING)
    with pytest.raises(NotDone, match="not started after 30 s: systemctl list-jobs shows what waits"):
        lab.start(timeout=30)
    assert lab.now == 1020


# --- asked wrongly, check mode


@pytest.mark.parametrize("state", ["started", "stopped"])
def test_a_unit_that_systemd_does_not_know_is_told(state: str) -> None:
    lab = Lab(ABSENT)
    with pytest.raises(NotDone, match=f"{NAME} is inactive/dead: systemd does not know it: is the name right"):
        lab.change(state).bring_about()
    assert lab.calls == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "vllm@*"}, "name is 'vllm@\\*': give one unit, such as vllm@r0.service"),
        ({"name": "--all"}, "name is '--all': give one unit"),
        ({"name": ""}, "name is '': give one unit"),
        ({"timeout": -1}, "timeout is -1, needed is 0 or more"),
        ({"hard_after": -1}, "hard_after is -1"),
        ({"leftover_timeout": -1}, "leftover_timeout is -1"),
        ({"return_after": -1}, "return_after is -1"),
        ({"interval": 0}, "interval is 0, needed is 0.01 or more"),
    ],
)
def test_a_wish_that_cannot_be_meant(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnitError, match=words):
        Wish(**{"name": NAME, "state": "stopped", **change})


@pytest.mark.parametrize(
    ("state", "before", "changed", "after"),
    [
        ("stopped", RUNS, True, "inactive/dead"),
        ("stopped", STOPPING, True, "inactive/dead"),
        ("stopped", CRASHED, True, "inactive/dead"),
        ("stopped", KILLED, False, "failed/failed"),
        ("stopped", ABSENT, False, "inactive/dead"),
        ("started", RUNS, False, "active/running"),
        ("started", LOADS, False, "activating/start-pre"),
        ("started", DEAD, True, "active/running"),
        ("started", ABSENT, True, "active/running"),
    ],
)
def test_check_mode_foresees(state: str, before: UnitState, changed: bool, after: str) -> None:
    lab = Lab(before)
    found = lab.change(state).foresee()
    assert lab.calls == [] and (found.changed, found.after, found.seconds) == (changed, after, 0)
    assert found.msg.endswith(f": would be {state}" if changed else ": nothing would be done")


# --- what systemd says


def test_the_properties_of_a_unit_are_understood() -> None:
    text = "Id=vllm@r0.service\nActiveState=deactivating\nSubState=stop-sigterm\nJob=4711\nTimeoutStopUSec=1min 30s\n"
    text += "ControlGroup=/a/b\nSlice=system-vllm.slice\nActiveExitTimestampMonotonic=1500000\n"
    seen = _systemd.parse_show(
        "vllm@r0", text + "InactiveExitTimestampMonotonic=0\nInactiveEnterTimestampMonotonic=7\n"
    )
    assert (seen.job, seen.control_group, seen.stop_seconds) == (4711, "/a/b", 90.0)
    assert (seen.active_until, seen.inactive_until, seen.inactive_since) == (1.5, 0.0, 7e-6)


def test_the_group_that_systemd_let_go_of_is_known() -> None:
    text = "Id=vllm@r0.service\nControlGroup=\nSlice=system-vllm.slice\nJob=\n"
    seen = _systemd.parse_show("vllm@r0", text)
    assert (seen.job, seen.control_group) == (0, "/system.slice/system-vllm.slice/vllm@r0.service")
    assert _systemd.parse_show(NAME, "").control_group == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1min 30s", 90),
        ("2h 5min", 7500),
        ("1.500s", 1.5),
        ("250ms", 0.25),
        ("1w 1d", 691200),
        ("infinity", float("inf")),
        ("", 90),
    ],
)
def test_a_span_of_systemd_is_read(text: str, seconds: float) -> None:
    assert _systemd.span(text) == seconds


# --- the module


class Service:
    """A fake vLLM as a unit of a fake systemd."""

    def __init__(self, base: pathlib.Path, run_module: Run) -> None:
        self.base, self._run_module = base, run_module
        self.port = 0
        self.spec: dict[str, Any] = {"stop_seconds": 20}

    def write(self, command: list[str], **spec: Any) -> None:
        self.spec |= {"command": command, **spec}
        (self.base / f"{NAME}.json").write_text(json.dumps(self.spec))

    def run(self, state: str, check: bool = False, **more: Any) -> Any:
        options = {"name": NAME, "state": state, "interval": 0.02, "leftover_timeout": 10, **more}
        return self._run_module("vllm_unit", options, check=check)

    def calls(self) -> list[str]:
        return (self.base / "calls").read_text().splitlines()

    def processes(self) -> list[int]:
        """Main process first, engine and worker, once all are there."""
        group = int((self.base / f"{NAME}.main.pid").read_text())

        def members() -> list[int]:
            rows = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
            return [int(row.split()[0]) for row in rows if int(row.rpartition(")")[2].split()[2]) == group]

        found: list[int] = await_that(lambda: len(members()) >= 3 and members(), "engine and worker are there")
        return sorted(found, key=lambda pid: pid != group)

    def end(self) -> None:
        for path in self.base.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def service(tmp_path: pathlib.Path, run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    found = Service(tmp_path, run_module)
    monkeypatch.setenv("PATH", str(systemd.lay_out(tmp_path)))
    yield found
    found.end()


@pytest.fixture
def replica(service: Service, site: pathlib.Path, request: pytest.FixtureRequest) -> Service:
    """A fake vLLM, not started, that ends when it is asked to."""
    name = re.sub(r"\W", "_", request.node.name)
    service.port, command, environment = configure(site, name, **{"shutdown-timeout": 5})
    service.write(command, environment=environment)
    return service


def listens(port: int) -> bool:
    return bool(Leftovers(port=port).found())


def test_a_replica_is_started_and_stopped(replica: Service) -> None:
    foreseen = replica.run("started", check=True)
    assert foreseen["changed"] and not (replica.base / "calls").exists()
    started = replica.run("started")
    assert started["changed"] and started["done"] and started["after"] == "active/running" and started["restarts"] == 0
    assert started["diff"] == foreseen["diff"]
    assert not replica.run("started")["changed"]
    pids = replica.processes()
    await_that(lambda: listens(replica.port), "it listens")
    foreseen = replica.run("stopped", check=True)
    stopped = replica.run("stopped", port=replica.port, address="127.0.0.1")
    assert not stopped.failed and stopped["changed"] and stopped["done"] and not stopped["hard"]
    assert (stopped["before"], stopped["after"]) == ("active/running", "inactive/dead")
    assert stopped["diff"] == foreseen["diff"] and stopped["after"] == foreseen["after"]
    assert not any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in pids) and not listens(replica.port)
    again = replica.run("stopped", port=replica.port)
    assert not again["changed"] and again["done"]
    assert replica.calls() == [
        "daemon-reload",
        f"reset-failed -- {NAME}",
        f"start --no-block -- {NAME}",
        f"stop --no-block -- {NAME}",
    ]


def test_one_that_does_not_end_is_killed_over_several_calls(service: Service) -> None:
    ready = service.base / "ready"
    ignore = (
        "import signal, time, pathlib; signal.signal(15, signal.SIG_IGN); pathlib.Path({!r}).touch(); time.sleep(600)"
    )
    service.write([sys.executable, "-c", ignore.format(str(ready))])
    service.run("started")
    await_that(ready.exists, "it ignores SIGTERM")
    first = service.run("stopped", return_after=0.3, hard_after=1)
    assert not first.failed and first["changed"] and not first["done"] and not first["hard"]
    assert first["after"] == "deactivating/stop-sigterm"
    last = service.run("stopped", hard_after=1)
    assert last["done"] and last["hard"] and last["after"] == "failed/failed"
    assert last["seconds"] < 10
    assert service.calls()[-1] == f"kill --signal=SIGKILL -- {NAME}"
    assert service.run("started")["done"], "what failed is started again"


def test_engine_and_worker_that_outlive_their_server_are_told(replica: Service) -> None:
    replica.write(replica.spec["command"], kill_rest=False)
    replica.run("started")
    main, *rest = replica.processes()
    await_that(lambda: listens(replica.port), "it listens")
    os.kill(main, signal.SIGSTOP)  # so that it cannot end them

    def kill() -> None:
        await_that((replica.base / f"{NAME}.stop").exists, "the stop has begun")
        os.kill(main, signal.SIGKILL)

    threading.Thread(target=kill).start()
    failed = replica.run("stopped", leftover_timeout=0.3)
    assert failed.failed and failed["changed"] and not failed["done"] and failed["hard"]
    assert "not all of it is gone" in failed["msg"]
    assert "(VLLM::EngineCor, state S, " in failed["msg"] and "(VLLM::Worker, state S, " in failed["msg"]
    assert all(f"end it (kill -9 {pid})" in failed["msg"] for pid in rest)


def test_a_port_that_somebody_else_holds_is_told(service: Service) -> None:
    service.write(SLEEP)
    service.run("started")
    with socket.create_server(("127.0.0.1", 0)) as server:
        failed = service.run("stopped", port=server.getsockname()[1], leftover_timeout=0.1)
    assert failed.failed and failed["changed"] and failed["after"] == "failed/failed"
    assert f"process {os.getpid()} (" in failed["msg"] and "or give the replica another port" in failed["msg"]


def test_a_start_that_fails_tells_the_journal(service: Service) -> None:
    service.write(SLEEP, assert_path=str(service.base / "none"))
    failed = service.run("started")
    assert failed.failed and failed["changed"] and not failed["done"]
    assert failed["msg"].endswith(f"tells:\nAssertion failed for {NAME}.")


def test_a_host_without_gpus_is_told(service: Service) -> None:
    service.write(SLEEP)
    stopped = service.run("stopped", gpus=["0"])
    assert stopped["done"] and stopped["notes"] == ["nvidia-smi is not on this host: not looked whether GPU 0 is free"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "vllm@*"}, "give one unit"),
        ({"name": "vllm@none.service"}, "systemd does not know it"),
        ({"address": "gpu1", "port": 8000}, "give the IP address"),
    ],
)
def test_what_is_asked_wrongly_is_told(service: Service, options: dict[str, Any], words: str) -> None:
    service.write(SLEEP)
    failed = service.run("stopped", **options)
    assert failed.failed and words in failed["msg"]


def test_a_host_without_systemd_is_told(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    failed = service.run("stopped")
    assert failed.failed and "systemctl is not on this host" in failed["msg"]
