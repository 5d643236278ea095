"""Processes of a unit and what a stopped one leaves behind: real processes and sockets of this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._systemd import UnitState
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import leftovers, processes
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.leftovers import Leftovers
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.processes import Process

from tests.fakes.vllm.running import await_that
from tests.ports import free_port

Starter = Callable[[str], subprocess.Popen[bytes]]
NOBODY = 2**22 + 1  # above the highest number that the kernel gives
STAT = "{pid} ({name}) {state} {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 4096 512 0"


def unit(main_pid: int = 0, control_group: str = "") -> UnitState:
    return UnitState("vllm@r0.service", main_pid=main_pid, control_group=control_group)


@pytest.fixture
def program() -> Iterator[Starter]:
    """A function that runs a Python program, in a session of its own, that says when it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def start(text: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", f"{text}\nprint('ready', flush=True)\nimport time; time.sleep(600)"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def proc_of(base: pathlib.Path, *rows: tuple[int, int, str, str, int]) -> pathlib.Path:
    """A /proc with processes of the given number, parent, name, state and number of threads."""
    for pid, parent, name, state, threads in rows:
        for thread in range(threads):
            (base / str(pid) / "task" / str(pid + thread)).mkdir(parents=True)
        (base / str(pid) / "stat").write_text(STAT.format(pid=pid, name=name, state=state, parent=parent))
    return base


# --- processes


def test_processes_come_from_the_control_group_else_from_the_main_process(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ((10, 1, "vllm"), (11, 10, "a) b (c"), (12, 11, "worker"), (13, 1, "other"))
    proc = proc_of(tmp_path / "proc", *((pid, parent, name, "S", 1) for pid, parent, name in rows))
    assert processes.of_unit("", 10, proc) == [10, 11, 12]
    assert processes.of_unit("", 0, proc) == []
    (tmp_path / "system.slice" / "a.service" / "sub").mkdir(parents=True)
    (tmp_path / "system.slice" / "a.service" / "cgroup.procs").write_text("")
    (tmp_path / "system.slice" / "a.service" / "sub" / "cgroup.procs").write_text("21\n20\n")
    monkeypatch.setattr(processes, "GROUPS", (str(tmp_path),))
    assert processes.of_unit("/system.slice/a.service", 10, proc) == [20, 21]
    assert processes.of_unit("/system.slice/b.service", 10, proc) == [10, 11, 12]


def test_a_process_is_looked_at(program: Starter) -> None:
    seen = processes.look(program("import ctypes; ctypes.CDLL(None).prctl(15, b'a) (b', 0, 0, 0)").pid)
    assert seen is not None and (seen.command, seen.state in "SR") == ("a) (b", True)
    assert 2**20 < seen.memory < 2**30
    assert re.fullmatch(r"process \d+ \(a\) \(b, state [SR], [1-9]\d* MiB\)", seen.words())
    assert processes.look(NOBODY) is None


def test_one_that_ended_and_was_not_reaped_is_gone() -> None:
    child = subprocess.Popen(["true"])
    await_that(lambda: pathlib.Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z", "it is a zombie")
    assert processes.look(child.pid) is None
    child.wait()


@pytest.mark.parametrize(("threads", "there"), [(1, False), (2, True)])
def test_a_zombie_is_there_while_the_driver_holds_a_thread(tmp_path: pathlib.Path, threads: int, there: bool) -> None:
    proc = proc_of(tmp_path, (10, 1, "VLLM::Worker", "Z", threads))
    assert (processes.look(10, proc) is not None) is there


# --- what is left


def test_a_process_that_does_not_end_is_told_with_its_mend(program: Starter) -> None:
    process, left = program(""), Leftovers()
    left.remember(unit(process.pid))
    (words,) = left.found()
    pattern = r"process {0} \(python.*, state [SR], \d+ MiB\) has not ended: end it \(kill -9 {0}\)"
    assert re.fullmatch(pattern.format(process.pid), words)
    process.kill()
    await_that(lambda: left.found() == [], "it is gone")


def test_a_child_is_remembered_when_its_parent_has_ended(program: Starter) -> None:
    process, left = (
        program("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"),
        Leftovers(),
    )
    left.remember(unit(process.pid))
    process.kill()
    process.wait()
    left.remember(unit())
    (child,) = left.alive()
    assert child.command == "sleep"
    os.kill(child.pid, 9)
    await_that(lambda: left.found() == [], "it is gone")


def test_a_later_process_with_the_same_number_is_another(tmp_path: pathlib.Path) -> None:
    left = Leftovers(proc=proc_of(tmp_path, (10, 1, "vllm", "S", 1)))
    left.remember(unit(10))
    assert len(left.alive()) == 1
    stat = tmp_path / "10" / "stat"
    stat.write_text(stat.read_text().replace(" 777 ", " 778 "))
    assert left.alive() == []


def test_one_that_waits_in_the_kernel_needs_another_mend() -> None:
    stuck = Process(10, 777, "VLLM::Worker", "D", 12 * 2**30)
    words = "process 10 (VLLM::Worker, state D, 12288 MiB) waits in the kernel: its driver (journalctl -k) or a restart"
    assert leftovers.left_process(stuck).startswith(words)


# --- sockets

LISTEN = "import socket; s = socket.socket({family}); s.bind(({host!r}, {port})); s.listen()"


@pytest.mark.parametrize(
    ("host", "asked", "held"),
    [
        ("127.0.0.1", "", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("::1", "", True),
        ("::1", "127.0.0.1", False),
        ("::", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
    ],
)
def test_a_port_is_held_where_a_start_could_not_listen(program: Starter, host: str, asked: str, held: bool) -> None:
    if ":" in host and not pathlib.Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    family = "socket.AF_INET6" if ":" in host else "socket.AF_INET"
    process = program(LISTEN.format(family=family, host=host, port=port))
    found = Leftovers(port=port, address=asked).found()
    assert len(found) == held
    for words in found:
        shown = host.replace("::ffff:", "")
        assert re.match(
            rf"process {process.pid} \(python.*\) listens at port {port} of {shown}: end it \(kill -9", words
        )


def test_a_child_that_inherited_the_socket_is_told(program: Starter) -> None:
    port = free_port()
    listen = LISTEN.format(family="socket.AF_INET", host="127.0.0.1", port=port)
    process = program(f"{listen}\nimport os, time; os.fork() or time.sleep(600)")
    (words,) = Leftovers(port=port).found()
    assert words.count("process ") == 2 and re.search(rf"kill -9 {process.pid} \d+\)", words)


def test_connections_and_other_ports_hold_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert Leftovers(port=client.getsockname()[1]).found() == []
        assert len(Leftovers(port=server.getsockname()[1]).found()) == 1
        assert Leftovers().found() == []


def test_a_holder_that_cannot_be_seen_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("  sl\n   0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 4711 1 0 0\n")
    (words,) = Leftovers(port=8000, proc=tmp_path).found()
    assert words.startswith("a process that cannot be seen from here listens at port 8000 of ")
    assert "ss -tlnp" in words


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(LlmopsError, match="address is 'gpu1': give the IP address"):
        Leftovers(port=8000, address="gpu1")


def test_addresses_are_read_in_the_order_of_this_machine() -> None:
    with socket.create_server(("127.0.0.3", 0)) as server:
        assert [one for one, _inode in leftovers.listening(server.getsockname()[1])] == [
            ipaddress.ip_address("127.0.0.3")
        ]


# --- GPUs


@pytest.fixture
def smi(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], pathlib.Path]:
    """A function that lets nvidia-smi be a shell script; its arguments go into the file that is returned."""

    def write(text: str) -> pathlib.Path:
        (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n{text}\n')
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "asked"

    return write


def test_memory_of_a_process_that_has_ended_is_left(smi: Callable[[str], pathlib.Path]) -> None:
    asked = smi(f"echo '{NOBODY}, [Not Found], 71234 MiB'")
    left = Leftovers(gpus=["0", "1"])
    assert left.found() == [
        f"GPU 0,1 has memory of process {NOBODY} ([Not Found], 71234 MiB), which has ended: "
        "reset it (nvidia-smi --gpu-reset --id=0,1) or restart the host"
    ]
    assert left.notes == []
    query = "--id=0,1 --query-compute-apps=pid,process_name,used_memory --format=csv,noheader"
    assert asked.read_text().strip() == query


def test_memory_of_somebody_else_is_told_and_not_waited_for(smi: Callable[[str], pathlib.Path]) -> None:
    smi(f"echo '{os.getpid()}, python, 512 MiB'")
    left = Leftovers(gpus=["0"])
    assert [left.found(), left.found()] == [[], []]
    words = (
        f"GPU 0 has memory of process {os.getpid()} (python, 512 MiB), which is not of this unit: a start waits for it"
    )
    assert left.notes == [words]


@pytest.mark.parametrize("text", ["", "echo 'No running processes found'"])
def test_free_gpus_are_free(smi: Callable[[str], pathlib.Path], text: str) -> None:
    smi(text)
    left = Leftovers(gpus=["0"])
    assert (left.found(), left.notes) == ([], [])


def test_gpus_that_cannot_be_asked_are_not_known_to_be_free(smi: Callable[[str], pathlib.Path]) -> None:
    smi("echo 'Unable to determine the device handle'; exit 9")
    (words,) = Leftovers(gpus=["0"]).found()
    assert words.startswith("it is not known whether GPU 0 is free: nvidia-smi --id=0")
    assert words.endswith("ended with code 9 Unable to determine the device handle. Is its driver loaded?")


def test_a_host_without_nvidia_smi_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    left = Leftovers(gpus=["GPU-1"])
    assert left.found() == []
    assert left.notes == ["nvidia-smi is not on this host: not looked whether GPU GPU-1 is free"]


def test_cpu_seconds_are_those_of_the_process() -> None:
    before = time.process_time()
    seen = processes.cpu_seconds(os.getpid())
    assert before - 0.1 <= seen <= time.process_time() + 0.1
