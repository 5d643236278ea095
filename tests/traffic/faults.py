"""Faults of replicas, balancers and hosts, and their end. Those of the fake are asked for from its own host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.sandbox.layout import GATEWAY

from .fleet import Fleet, Replica, sh

ENGINE, WORKER, SERVER = "engine", "worker", "server"


def switch(replica: Replica, kind: str, **options: Any) -> None:
    """Give a fake replica a fault; ``none`` ends it. ``for_`` stands for ``for``."""
    body = json.dumps({"kind": kind, **{name.rstrip("_"): value for name, value in options.items()}})
    sh(replica.host, f"curl -sf --max-time 5 -d @- http://{replica.endpoint}/fake/fault", given=body)


@contextmanager
def faulty(replica: Replica, kind: str, **options: Any) -> Iterator[None]:
    """A fake replica has the fault within the block."""
    switch(replica, kind, **options)
    try:
        yield
    finally:
        switch(replica, "none")


def signal(replica: Replica, process: str, name: str) -> None:
    """Send a signal to the API server, the EngineCore or the Worker of a replica."""
    find = f"pid=$(systemctl show -p MainPID --value {replica.unit})"
    if process in (ENGINE, WORKER):
        find += "; pid=$(pgrep -P $pid '^VLLM::Engine')"
    if process == WORKER:
        find += "; pid=$(pgrep -P $pid '^VLLM::Worker')"
    sh(replica.host, f"{find}; kill -{name} $pid")


@contextmanager
def frozen(replica: Replica, process: str) -> Iterator[None]:
    """A process of a replica stands still within the block."""
    signal(replica, process, "STOP")
    try:
        yield
    finally:
        signal(replica, process, "CONT")


def kill_unit(host: str, unit: str) -> None:
    """SIGKILL to every process of a unit at once."""
    sh(host, f"systemctl kill -s KILL {unit}")


@contextmanager
def without_network(host: str) -> Iterator[None]:
    """The host's only link is down within the block; its containers' engine still reaches into it."""
    sh(host, "ip link set eth0 down")
    try:
        yield
    finally:
        # The address stays with the link; routes do not.
        sh(host, f"ip link set eth0 up && ip route replace default via {GATEWAY} dev eth0")


def clear(fleet: Fleet) -> None:
    """End every fault that a fake replica may have, whatever became of it."""
    for replica in fleet.replicas if fleet.fake else ():
        url = f"http://{replica.endpoint}/fake/fault"
        sh(replica.host, f"curl -s --max-time 5 -d @- {url}", check=False, given='{"kind": "none"}')
