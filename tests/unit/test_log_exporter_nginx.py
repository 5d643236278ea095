"""The log exporter beside a real NGINX with the role's configuration: what happens to requests is what it counts."""

from __future__ import annotations

import pathlib
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.fakes.vllm.running import await_that
from tests.log_exporter import FORMS, Exporter
from tests.unit.agent.nginx_lab import Lab, ask, lab, needs_lua, needs_nginx, read_all

pytestmark = needs_nginx
MARKS = {"lua": [needs_lua], "native": []}


class Balancer:
    """A lab of NGINX with two replicas of the pool ``default``, and the exporter that reads its logs."""

    def __init__(self, it: Lab, exporter: Exporter) -> None:
        self.it, self.exporter = it, exporter

    def modes(self, mode: str) -> None:
        """Let both replicas do this from now on."""
        for replica in self.it.replicas.all.values():
            replica.mode = mode

    def count(self, name: str, pool: str = "default", **labels: str) -> float:
        """Return a counter, all series of it that have these labels together."""
        wanted = [f'{label}="{value}"' for label, value in {"pool": pool, **labels}.items()]
        found = [item for item in self.exporter.values().items() if item[0].startswith(f"llmops_balancer_{name}{{")]
        return sum(value for key, value in found if all(text in key for text in wanted))

    def becomes(self, name: str, count: float, **labels: str) -> None:
        """Wait until a counter has this value."""
        await_that(lambda: self.count(name, **labels) == count, f"{name} {labels} is {count}")


def files(pid: int) -> list[str]:
    """Return what a process has open."""
    return [str(path.readlink()) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()]


@pytest.fixture(params=[pytest.param(form, marks=MARKS[form]) for form in FORMS])
def balancer(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Balancer]:
    with lab(request.param) as it:
        for name in ("g1/r0", "g2/r0"):
            it.replicas.start(name)
        if request.param == "native":
            (it.home / "view" / "current").mkdir()
            servers = [f"server 127.0.0.1:{replica.port} max_fails=0;\n" for replica in it.replicas.all.values()]
            (it.home / "view" / "current" / "llm_default.conf").write_text("".join(servers))
        it.start()
        if request.param == "lua":
            it.put()
        logs = it.home / "log"
        with Exporter(tmp_path, request.param, logs / "llm_access.log", logs / "error.log") as exporter:
            yield Balancer(it, exporter)


def test_answers_and_their_times(balancer: Balancer) -> None:
    assert {balancer.it.ask()[0] for _turn in range(4)} == {200}
    balancer.becomes("requests_total", 4, status="200")
    balancer.becomes("responses_total", 4, status="200")
    assert balancer.count("first_byte_seconds_count") == balancer.count("request_seconds_count") == 4
    assert balancer.count("client_requests_total", client="c") == 4
    assert balancer.count("sent_bytes_total") > 400
    assert balancer.count("retries_total") == balancer.count("broken_streams_total") == 0


def test_second_tries(balancer: Balancer) -> None:
    first, second = balancer.it.replicas.all.values()
    first.mode = "broken"
    assert {balancer.it.ask()[0] for _turn in range(6)} == {200}
    balancer.becomes("requests_total", 6, status="200")
    failed = balancer.count("responses_total", endpoint=f"127.0.0.1:{first.port}", status="500")
    assert balancer.count("retries_total") == failed > 0
    assert balancer.count("responses_total", endpoint=f"127.0.0.1:{second.port}", status="200") == 6


def test_stream_that_a_replica_breaks(balancer: Balancer) -> None:
    balancer.it.ask()
    balancer.becomes("requests_total", 1)
    balancer.modes("cut")
    for _turn in range(3):
        read_all(balancer.it.request())
    balancer.becomes("broken_streams_total", 3)
    balancer.becomes("requests_total", 4, status="200")
    assert balancer.count("client_aborts_total") == 0


def test_client_that_leaves(balancer: Balancer) -> None:
    balancer.modes("slow")
    balancer.it.stream().close()
    balancer.becomes("client_aborts_total", 1)
    balancer.modes("silent")
    line = balancer.it.request()
    await_that(lambda: any(replica.open for replica in balancer.it.replicas.all.values()), "a replica has it")
    line.close()
    balancer.becomes("client_aborts_total", 2)
    balancer.becomes("requests_total", 1, status="499")
    assert balancer.count("broken_streams_total") == 0


def test_pool_without_replicas(balancer: Balancer) -> None:
    key = "sk-client-0123456789-other"
    assert balancer.it.ask(key=key)[0] in (502, 503)
    await_that(lambda: balancer.count("requests_total", "other") == 1, "the request is counted")
    assert balancer.count("responses_total", "other") == balancer.count("retries_total", "other") == 0


def test_requests_of_strangers(balancer: Balancer) -> None:
    assert ask(balancer.it.port, "POST", "/v1/completions", {"Authorization": "Bearer nobody"}, "{}")[0] == 401
    with socket.create_connection(("127.0.0.1", balancer.it.port), timeout=10) as line:
        line.sendall(b'\x16\x03"\\x\r\n\r\n')
        assert b" 400 " in line.recv(100)
    for status in ("400", "401"):
        await_that(lambda status=status: balancer.count("requests_total", "none", status=status) == 1, status)
    assert balancer.count("requests_total") == 0


def test_nginx_opens_its_logs_anew(balancer: Balancer) -> None:
    balancer.it.ask()
    balancer.becomes("requests_total", 1)
    old = str(balancer.exporter.rotate())
    assert balancer.it.process
    balancer.it.process.send_signal(signal.SIGUSR1)
    writers = [balancer.it.process.pid, *balancer.it.workers()]
    await_that(lambda: old not in {target for pid in writers for target in files(pid)}, "NGINX has the new log open")
    balancer.it.ask()
    balancer.becomes("requests_total", 2)
