"""CPU seconds of the sandbox's hosts, from the engine's control groups (``docker stats`` gives only zeros here)."""

from __future__ import annotations

import pathlib

from .layout import HOSTS
from .steps import run, succeeds


def host_cpu_seconds() -> dict[str, float]:
    """Return host name -> CPU seconds since its start, of the hosts that are up."""
    found = {host.name: container_cpu_seconds(host.container) for host in HOSTS}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def container_cpu_seconds(container: str) -> float | None:
    """Return the CPU seconds of a container since its start, or None where there is no such container."""
    if not succeeds(["docker", "inspect", container]):
        return None
    ident = run(["docker", "inspect", "-f", "{{.Id}}", container]).strip()
    root = pathlib.Path("/sys/fs/cgroup")
    version1 = root / "cpuacct" / "docker" / ident / "cpuacct.usage"
    if version1.exists():
        return int(version1.read_text()) / 1e9
    version2 = root / "system.slice" / f"docker-{ident}.scope" / "cpu.stat"
    return int(version2.read_text().split()[1]) / 1e6
