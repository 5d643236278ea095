"""Runs named steps with progress, and keeps wall and CPU seconds of each."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

HEARTBEAT_SECONDS = 10


def busy_cpu_seconds() -> float:
    """CPU seconds that this whole machine has worked since boot: user, nice, system, irq and softirq of /proc/stat."""
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[i] for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


@dataclass
class Report:
    """Collects one row per step: what, wall seconds, CPU seconds of the whole machine."""

    rows: list[tuple[str, float, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title, then a sign of life every 10 s, then what it took."""
        print(f"==> {title}", flush=True)
        wall, cpu = time.monotonic(), busy_cpu_seconds()
        done = threading.Event()

        def heartbeat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                print(f"    ... {title}: {time.monotonic() - wall:.0f} s", flush=True)

        beat = threading.Thread(target=heartbeat, daemon=True)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()
            self.rows.append((title, time.monotonic() - wall, busy_cpu_seconds() - cpu))

    def table(self) -> str:
        """Return the steps as a table; steps that ran side by side share the machine's CPU seconds."""
        lines = [f"{'step':<44} {'wall s':>8} {'CPU s':>8}"]
        lines += [f"{title:<44} {wall:>8.1f} {cpu:>8.1f}" for title, wall, cpu in self.rows]
        lines.append(f"load average {' '.join(f'{x:.1f}' for x in os.getloadavg())}, {os.cpu_count()} cores")
        return "\n".join(lines)


class SandboxError(Exception):
    """What failed and what to do, in words for the person at the terminal."""


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, pipe: IO[bytes] | None = None) -> str:
    """Run a command to its end and return what it printed; raise SandboxError with its last lines."""
    done = subprocess.run(
        list(command),
        stdin=pipe or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        check=False,
    )
    output = (done.stdout or b"").decode(errors="replace")
    if done.returncode != 0:
        tail = "\n".join(output.splitlines()[-15:])
        raise SandboxError(f"`{' '.join(command)}` ended with {done.returncode}:\n{tail}")
    return output


def succeeds(command: Sequence[str]) -> bool:
    """Whether the command can be run and ends with 0; prints nothing."""
    try:
        done = subprocess.run(list(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return done.returncode == 0
    except FileNotFoundError:
        return False


def warn(text: str) -> None:
    """Print a line that should be seen, but stops nothing."""
    print(f"!!  {text}", file=sys.stderr, flush=True)
