"""The log exporter without a host: its program rendered, a real mtail that runs it, lines as NGINX formats them."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import urllib.request
from typing import Any

from tests import balancer_role, debian_programs, exporters_role
from tests.fakes.vllm.running import await_that
from tests.ports import free_port

PROGRAM = "llm_balancer.mtail.j2"
NAMES = frozenset(
    re.findall(r"(?m)^(?:counter|histogram) (\w+)", (exporters_role.ROLE / "templates" / PROGRAM).read_text())
)
FORMS = ("lua", "native")
_FORMAT = re.search(r"log_format llm escape=json (.*?);", balancer_role.render("nginx.conf.j2"), re.DOTALL)


def program(form: str) -> str:
    """Return the program as the role writes it."""
    return exporters_role.render(PROGRAM, llm_exporters_log_form=form)


def line(**values: Any) -> str:
    """Return a line of the access log in the balancer's own format; variables of NGINX without their sign."""
    assert _FORMAT
    usual = {
        "time_iso8601": "2026-11-30T01:06:11+00:00",
        "request_id": "3a9afe53c7a670e6d535f2e9e46ef48a",
        "llm_client": "front",
        "llm_pool": "chat",
        "remote_addr": "192.0.2.99",
        "request_method": "POST",
        "uri": "/v1/completions",
        "llm_status": 200,
        "request_completion": "OK",
        "llm_end": "",
        "bytes_sent": 180,
        "request_length": 148,
        "request_time": "0.100",
        "upstream_addr": "",
        "upstream_status": "",
        "upstream_connect_time": "",
        "upstream_header_time": "",
        "upstream_response_time": "",
        "upstream_bytes_received": "",
        "connection_requests": 1,
    }
    assert values.keys() <= usual.keys()
    pattern = "".join(re.findall(r"'([^']*)'", _FORMAT[1]))
    return re.sub(r"\$(\w+)", lambda found: str((usual | values)[found[1]]), pattern)


def tries(*each: tuple[str, str, str, str]) -> dict[str, str]:
    """Return the lists of a line for tries of (address, status, time to connect, time to the first byte)."""
    names = ("upstream_addr", "upstream_status", "upstream_connect_time", "upstream_header_time")
    return {name: ", ".join(values) for name, values in zip(names, zip(*each))}


def broken(address: str, reason: str = "upstream prematurely closed connection while reading upstream") -> str:
    """Return the line of the error log of an answer that a replica broke off."""
    return (
        f"2026/11/30 01:06:15 [error] 91#91: *20 {reason}, client: 192.0.2.99, server: _, "
        f'request: "POST /v1/completions HTTP/1.1", upstream: "http://{address}/v1/completions", host: "example.com"'
    )


class Exporter:
    """A real mtail with the program; ``access`` and ``errors`` are its logs."""

    def __init__(self, home: pathlib.Path, form: str, access: pathlib.Path, errors: pathlib.Path) -> None:
        self.programs, self.access, self.errors, self.lines = home / "programs", access, errors, 0
        self.programs.mkdir()
        self.write(program(form))
        for log in (access, errors):
            log.touch()
        self.port = free_port()
        self.logs = [access, errors] if form == "native" else [access]
        self.command = [
            *(str(debian_programs.program("mtail", "mtail")), f"--progs={self.programs}", "--emit_prog_label=false"),
            *(
                "--logtostderr",
                "--poll_interval=10ms",
                "--poll_log_interval=10ms",
                "--address=127.0.0.1",
                f"--port={self.port}",
                *(f"--logs={log}" for log in self.logs),
            ),
        ]

    def write(self, text: str) -> None:
        """Write the program."""
        (self.programs / "llm_balancer.mtail").write_text(text)

    def __enter__(self) -> Exporter:
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        await_that(lambda: self.state()["log_count"] == len(self.logs), "mtail has its logs open")
        return self

    def __exit__(self, *_reason: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)

    def text(self) -> str:
        """Return its metrics as they are."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            found: str = answer.read().decode()
        return found

    def state(self) -> dict[str, Any]:
        """Return what mtail tells of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/debug/vars", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def values(self) -> dict[str, float]:
        """Return our metrics by name and labels as mtail writes them."""
        rows = [row.rpartition(" ") for row in self.text().splitlines() if row.startswith("llmops_")]
        return {name: float(value) for name, _space, value in rows}

    def feed(self, log: pathlib.Path, *lines: str) -> None:
        """Append lines to a log and wait until they are counted."""
        with log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.lines += len(lines)
        self.seen(self.lines)

    def rotate(self) -> pathlib.Path:
        """Put a new access log in the place of the old one and return that; there is a log at any moment."""
        old, new = self.access.with_suffix(".log.1"), self.access.with_suffix(".log.new")
        old.unlink(missing_ok=True)
        old.hardlink_to(self.access)
        new.touch()
        new.rename(self.access)
        return old

    def seen(self, count: int) -> None:
        """Wait until mtail has seen so many lines, and has worked the last of them off."""
        done = rf'(?m)^mtail_vm_line_processing_duration_seconds_count{{prog="llm_balancer.mtail"}} {count}$'
        await_that(lambda: re.search(done, self.text()), f"mtail has seen {count} lines")
