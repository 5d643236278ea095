"""The fleets on the sandbox's hosts, and how they are reached: commands in containers, playbooks from this machine."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.sandbox.environment import for_ansible
from tools.sandbox.layout import HOSTS, INVENTORY, ROOT, SECRETS, VIRTUAL_ADDRESS

ADDRESS = {host.name: host.address for host in HOSTS}
BALANCERS = tuple(host.name for host in HOSTS if host.name.startswith("lb"))
SERVERS = tuple(host.name for host in HOSTS if host.name.startswith("gpu"))
CLIENT = "client1"
CONTROL = "/run/llm-agent/control.sock"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Replica:
    """A replica by the parts of its id."""

    host: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.host}/{self.name}"

    @property
    def port(self) -> int:
        return 8000 + int(self.name[1:])

    @property
    def endpoint(self) -> str:
        return f"{ADDRESS[self.host]}:{self.port}"

    @property
    def unit(self) -> str:
        return f"vllm@{self.name}"


@dataclass(frozen=True)
class Fleet:
    """Inventories over the sandbox's hosts. ``fake``: its replicas are the fake vLLM and take faults."""

    inventories: tuple[pathlib.Path, ...]
    pool: str
    names: tuple[str, ...]
    fake: bool

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(Replica(host, name) for host in SERVERS for name in self.names)

    @property
    def inventory(self) -> str:
        """As ansible reads it."""
        return ",".join(str(path) for path in self.inventories)

    def command(self, name: str, *options: str) -> tuple[list[str], dict[str, str]]:
        """The command line that plays a playbook of the collection on this fleet, and its environment."""
        env = {**for_ansible(), "ANSIBLE_INVENTORY": self.inventory, "ANSIBLE_NOCOLOR": "1"}
        for variable in ("ANSIBLE_FORCE_COLOR", "PY_COLORS"):
            env.pop(variable, None)
        return ["ansible-playbook", f"llmops.vllm.{name}", *options], env

    def playbook(self, name: str, *options: str, expected: int | None = 0) -> str:
        """Play it as an operator would and return what it printed; AssertionError when it ended otherwise."""
        command, env = self.command(name, *options)
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        told = done.stdout[-4000:] + done.stderr[-2000:]
        assert expected is None or done.returncode == expected, f"{' '.join(command)}: {done.returncode}\n{told}"
        return done.stdout


_FAULTS, _ROLLOUT, _PAGER = (
    ROOT / "molecule" / scenario / "inventory" for scenario in ("faults", "rollout_broken", "monitoring")
)
FAKE = Fleet((_FAULTS,), "chat-fake", ("r0", "r1"), fake=True)
ROLLED = Fleet((_FAULTS, _ROLLOUT), "chat-fake", ("r0", "r1", "r2"), fake=True)  # r2 are a pool of their own
REAL = Fleet((INVENTORY,), "chat-tiny", ("r0",), fake=False)
# The same, with somebody who is woken: tests/traffic/pages.py.
WATCHED_FAKE = Fleet((_FAULTS, _PAGER), "chat-fake", ("r0", "r1"), fake=True)
WATCHED_REAL = Fleet((INVENTORY, _PAGER), "chat-tiny", ("r0",), fake=False)


def sh(host: str, command: str, check: bool = True, given: str | None = None, timeout: float = 300) -> str:
    """Run a shell command on a host and return what it printed; AssertionError when it fails and ``check`` is set."""
    words = ["docker", "exec", "-i", f"llmops-{host}", "sh", "-c", command]
    done = subprocess.run(words, input=given or "", capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{host}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def await_that(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Return the first true answer; AssertionError with the last exception when there is none in time."""
    limit, last = time.monotonic() + seconds, ""
    while time.monotonic() < limit:
        try:
            if found := condition():
                return found
        except (AssertionError, ValueError, KeyError) as error:
            last = f" ({type(error).__name__}: {str(error)[-500:]})"
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {seconds:g} s: {what}{last}")


def key(client: str = "load") -> str:
    """The API key of a client of the sandbox."""
    entries = json.loads(SECRETS.read_text())["client_keys"]
    return str(next(entry["key"] for entry in entries if entry["name"] == client))


def holder() -> str:
    """The balancer that holds the virtual address; AssertionError unless it is exactly one."""
    look = "ip -o -4 addr show"
    holders = [name for name in BALANCERS if f" {VIRTUAL_ADDRESS}/" in sh(name, look)]
    assert len(holders) == 1, f"{VIRTUAL_ADDRESS} is held by {holders or 'nobody'}"
    return holders[0]


def other(balancer: str) -> str:
    """The balancer that is not this one."""
    return next(name for name in BALANCERS if name != balancer)


def status(balancer: str) -> dict[str, Any]:
    """What the agent of a balancer tells people."""
    # Exit status 1 says that something is wrong, which is often what is looked for.
    told: dict[str, Any] = json.loads(sh(balancer, "llm-balancer status --json || [ $? = 1 ]"))
    return told


def control(balancer: str, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    """Ask the control socket; return HTTP status and document."""
    options = "-H 'Content-Type: application/json' -d @-" if body is not None else ""
    command = f"curl -sS --max-time 120 --unix-socket {CONTROL} -X {method} {options} -w '\\n%{{http_code}}'"
    given = json.dumps(body) if body is not None else None
    text, _sep, code = sh(balancer, f"{command} http://agent{path}", given=given).rpartition("\n")
    return int(code), json.loads(text)


def row(balancer: str, replica: Replica) -> dict[str, Any]:
    """The row of a replica in the status of a balancer."""
    rows = status(balancer)["replicas"]
    found: dict[str, Any] = next(entry for entry in rows if entry["id"] == replica.id)
    return found


def unhealthy(told: dict[str, Any], fleet: Fleet) -> list[str]:
    """What keeps a status from being that of a healthy fleet."""
    found = [
        f"{name} is missing" for name in {one.id for one in fleet.replicas} - {row["id"] for row in told["replicas"]}
    ]
    for entry in told["replicas"]:
        good = entry["in_rotation"] and entry["health"] == "up" and entry["administrative"] == "active"
        if not good:
            found.append(f"{entry['id']}: {entry['administrative']}, {entry['health']}, {entry['reason']}")
    if not told["engine"]["confirmed"]:
        found.append(f"engine: {told['engine']['reason'] or 'view not confirmed'}")
    return found


def await_healthy(fleet: Fleet, seconds: float = 90) -> None:
    """Wait until every balancer has every replica in rotation and one of them holds the address."""

    def healthy() -> bool:
        problems = [f"{name}: {problem}" for name in BALANCERS for problem in unhealthy(status(name), fleet)]
        assert not problems, "; ".join(problems)
        return bool(holder())

    await_that(healthy, "every replica is in rotation on every balancer", seconds)
