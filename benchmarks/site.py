"""The fleet that is measured: brought up on the sandbox's hosts, and what runs on it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from tests.traffic import wheel
from tests.traffic.fleet import BALANCERS, SERVERS, Fleet, Replica, await_healthy, sh, status
from tools.sandbox.layout import ROOT


@dataclass(frozen=True)
class Setting:
    """What a measure gets: the fleet, and how long it may take (``short`` is for trying the measure itself)."""

    fleet: Fleet
    short: bool = False

    def pick(self, number: int) -> Replica:
        """One of the fleet's replicas, by number, over its hosts in turn."""
        by_host = sorted(self.fleet.replicas, key=lambda one: (one.name, one.host))
        return by_host[number % len(by_host)]


def say(text: str) -> None:
    """Tell the person who waits; the results are a file."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def bring_up(fleet: Fleet, form: str, fresh: bool) -> None:
    """Hosts, wheels and ``site.yml``, with the engine in this form ("" leaves it to the role)."""
    say("hosts and site.yml")
    command = [sys.executable, "-m", "tools.sandbox", "hosts", *(["--fresh"] if fresh else [])]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    if fleet.fake:
        wheel.main()
    fleet.playbook("site", *(["-e", f"llm_balancer_nginx_upstream={form}"] if form else []))
    await_healthy(fleet, 180)


def form() -> str:
    """The engine's form, as the agent tells it."""
    return str(status(BALANCERS[0])["agent"]["engine"]).rpartition("_")[2]


def versions() -> str:
    """Versions of NGINX on the balancers, and of vLLM: the environment's name, without its digest."""
    engines = [sh(name, "nginx -v 2>&1").strip().rpartition("/")[2] for name in BALANCERS]
    environment = sh(SERVERS[0], "basename $(readlink -f /etc/vllm/r0/current/env)").strip()
    return f"nginx {', '.join(engines)}; vLLM {environment.rpartition('-')[0]}"
