"""Runs Prometheus' family as the role llm_monitoring would: by the flags of its units, on its files, on loopback."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.debian_programs import among_its_files, serving
from tests.fakes.vllm.running import AWAIT_SECONDS
from tests.monitoring_role import PASSWORD, Rendered, lay_out, program
from tests.ports import free_port

_UNVERIFIED = ssl._create_unverified_context()


@dataclass
class Service:
    """A program that answers at an address; ``process`` is it while it runs."""

    url: str
    etc: pathlib.Path
    process: subprocess.Popen[bytes] | None = None

    def ask(self, path: str, body: Any = None, *, user: str = "llmops", password: str = PASSWORD) -> tuple[int, str]:
        """Return status and text of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=15, context=_UNVERIFIED) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        """Return the content of an answer."""
        return json.loads(self.ask(path)[1])

    def metric(self, name: str) -> float:
        """Return the value of a metric of its own that has no labels."""
        found = re.search(rf"^{name} (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        assert found, f"no metric {name}"
        return float(found[1])

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(
    part: str,
    example: Rendered,
    place: pathlib.Path,
    addresses: Mapping[str, str] | None = None,
    instead: pathlib.Path | None = None,
) -> Iterator[Service]:
    """Run a part at a free port of loopback, Debian 12's program or the one given ``instead``.

    ``addresses``: what stands for an address in its flags and files, those of its cluster among them; without it, it
    has no cluster.
    """
    etc = lay_out(example, place)
    words = re.findall(r"\S+", re.search(r"ExecStart=((?:.*\\\n)*.*)", example.text(f"{part}.service"))[1])
    command = [str(instead or program(pathlib.PurePath(words[0]).name))]
    url = f"127.0.0.1:{free_port()}"
    flags = [word for word in words[1:] if word != "\\" and (addresses or not word.startswith("--cluster."))]
    flags = [re.sub(r"(?<=^--web\.listen-address=).*", url, flag) for flag in flags]
    for written, here in {"/etc/prometheus": str(etc), "/var/lib/prometheus": str(etc), **(addresses or {})}.items():
        flags = [flag.replace(written, here) for flag in flags]
    for written, here in (addresses or {}).items():
        for path in etc.glob("*.yml"):
            path.write_text(path.read_text().replace(written, here))
    if part == "alertmanager":
        flags += [] if addresses else ["--cluster.listen-address="]
        command = [*among_its_files("prometheus-alertmanager"), *command]
    secured = "tls_server_config" in (etc / "llm-web.yml").read_text() and part != "blackbox"
    service = Service(f"{'https' if secured else 'http'}://{url}", etc)
    ready = "/-/healthy" if part == "blackbox" else "/-/ready"
    log = etc / f"{part}.log"
    with serving([*command, *flags], lambda: service.ask(ready)[0] == 200, log, AWAIT_SECONDS) as service.process:
        yield service
