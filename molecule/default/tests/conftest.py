"""Reaches the hosts of the sandbox through the container engine; the service as a client on a third host does."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import testinfra

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tools.sandbox.environment import for_ansible  # noqa: E402
from tools.sandbox.layout import HOSTS, INVENTORY, MODEL_NAME, SECRETS  # noqa: E402

ADDRESS = {host.name: host.address for host in HOSTS}
SERVERS = [host.name for host in HOSTS if host.name.startswith("gpu")]
BALANCERS = [host.name for host in HOSTS if host.name.startswith("lb")]


def host(name: str) -> testinfra.host.Host:
    return testinfra.get_host(f"docker://llmops-{name}")


def ansible(*command: str) -> subprocess.CompletedProcess[str]:
    """Run an ansible command as an operator would, against the sandbox, and return what it printed, without colours."""
    env = for_ansible()  # the sandbox's configuration instead of molecule's, which sends failures elsewhere
    for name in ("ANSIBLE_FORCE_COLOR", "PY_COLORS"):
        env.pop(name, None)
    env |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    return subprocess.run(
        [command[0], "-i", str(INVENTORY), *command[1:]], capture_output=True, text=True, env=env, check=False
    )


@dataclass
class Answer:
    """What a client saw: status, headers (lower-case names) and body."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """curl on the client host: requests come from where the load comes from, not from this machine."""

    def __init__(self) -> None:
        self.host = host("client1")
        self.secrets = json.loads(SECRETS.read_text())
        self.model = MODEL_NAME

    @property
    def key(self) -> str:
        return self.secrets["client_keys"][0]["key"]

    def request(self, url: str, body: Any = None, key: str | None = "", *options: str) -> Answer:
        """GET, or POST when there is a body; ``key`` empty means the demo client's, None means none."""
        key = self.key if key == "" else key
        command = [
            "curl",
            "-sS",
            "-i",
            "--no-buffer",
            "--max-time",
            "120",
            "--cacert",
            "/opt/sandbox/pki/ca.crt",
            *options,
        ]
        if key is not None:
            command += ["-H", f"Authorization: Bearer {key}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in [*command, url])
        done = self.host.run(words)
        assert done.rc == 0, f"curl {url}: {done.stderr}"
        head, _sep, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
        status, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _sep, value in (line.partition(":") for line in lines)}
        return Answer(int(status.split()[1]), headers, text)

    def chat(self, balancer: str, **options: Any) -> Answer:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, **options}
        return self.request(f"https://{ADDRESS[balancer]}/v1/chat/completions", body)


@pytest.fixture(scope="session")
def client() -> Client:
    return Client()
