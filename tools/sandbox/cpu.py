"""CPU seconds of the sandbox's hosts, from the engine's control groups (``docker stats`` gives only zeros here)."""

from __future__ import annotations

import pathlib

from .layout import HOSTS
from .steps import run


def host_cpu_seconds() -> dict[str, float]:
    """Return host name -> CPU seconds since its start."""
    return {host.name: _container_cpu_seconds(host.container) for host in HOSTS}


def _container_cpu_seconds(container: str) -> float:
    ident = run(["docker", "inspect", "-f", "{{.Id}}", container]).strip()
    root = pathlib.Path("/sys/fs/cgroup")
    version1 = root / "cpuacct" / "docker" / ident / "cpuacct.usage"
    if version1.exists():
        return int(version1.read_text()) / 1e9
    version2 = root / "system.slice" / f"docker-{ident}.scope" / "cpu.stat"
    return int(version2.read_text().split()[1]) / 1e6
