"""Load from the client host in the background: the strict client, started, awaited, and its rows."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.sandbox.layout import MODEL_NAME, VIRTUAL_ADDRESS

from . import fleet
from .fleet import CLIENT, await_that, sh

SERVICE = f"https://{VIRTUAL_ADDRESS}/v1"
CA = "/opt/sandbox/pki/ca.crt"
_numbers = itertools.count(1)


@dataclass
class Result:
    """What the load came to: the summary, and a row for each request (see ``tests.load.report.row``)."""

    told: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass
class Running:
    """A load client that runs on the client host; its files there begin with ``place``."""

    place: str

    def ended(self) -> bool:
        """Whether it has come to its end."""
        return "yes" in sh(CLIENT, f"[ -e {self.place}.status ] && echo yes; true")

    def wait(self, seconds: float = 600) -> Result:
        """Wait for its end and return what it came to."""
        await_that(self.ended, f"the load ends ({self.place})", seconds)
        told = sh(CLIENT, f"cat {self.place}.json || tail -20 {self.place}.log >&2 && [ -e {self.place}.json ]")
        rows = sh(CLIENT, f"cat {self.place}.rows 2>/dev/null; rm -f {self.place}.rows")
        return Result(json.loads(told), [json.loads(line) for line in rows.splitlines()])

    def stop(self, seconds: float = 180) -> Result:
        """Start no further request, let those that run end, and return what it came to."""
        sh(CLIENT, f"kill -TERM $(cat {self.place}.pid) 2>/dev/null; true")
        return self.wait(seconds)


def start(
    *options: str, urls: tuple[str, ...] = (SERVICE,), module: str = "tests.load", client: str = "load"
) -> Running:
    """Start the load client in the background; bounded by its own ``--requests`` and ``--seconds``."""
    place, key = f"/root/traffic-{next(_numbers)}", f"/root/{client}.key"
    sh(CLIENT, f"umask 077; cat > {key}; rm -f {place}.*", given=fleet.key(client))
    words = ["python3", "-m", module, *(word for url in urls for word in ("--url", url)), "--key-file", key]
    words += ["--model", MODEL_NAME, "--ca", CA, "--out", f"{place}.json"]
    words += ["--requests-out", f"{place}.rows"] if module == "tests.load" else []
    run = f"ulimit -n 65536; cd /opt; {shlex.join([*words, *options])} & echo $! > {place}.pid; wait $!"
    sh(CLIENT, f"( ( {run}; echo $? > {place}.status ) > {place}.log 2>&1 & )")
    await_that(lambda: sh(CLIENT, f"cat {place}.pid"), "the load client starts", 10)
    return Running(place)


def hostile(*kinds: str, count: int, seconds: float, url: str = f"https://{VIRTUAL_ADDRESS}") -> Running:
    """Start hostile clients, which leave by themselves after so many seconds."""
    options = ("--count", str(count), "--seconds", str(seconds))
    return start(*options, *kinds, urls=(url,), module="tests.load.hostile")


@contextmanager
def under_load(*options: str, urls: tuple[str, ...] = (SERVICE,), client: str = "load") -> Iterator[list[Result]]:
    """Run the block, of an hour at most, while the load runs; the result is the list's one entry after it."""
    found: list[Result] = []
    running = start("--requests", "1000000", "--seconds", "3600", *options, urls=urls, client=client)
    try:
        await_that(busy, "requests are under way", 60)
        yield found
    finally:
        found.append(running.stop())


def busy() -> bool:
    """Whether the client host has connections to the service."""
    # looked for over there: a request with a connection of its own can be over before this machine has asked twice
    look = f'[ -n "$(ss -Htn state established dst {VIRTUAL_ADDRESS})" ] && echo yes && exit'
    return bool(sh(CLIENT, f"for turn in $(seq 50); do {look}; sleep 0.02; done").strip())
