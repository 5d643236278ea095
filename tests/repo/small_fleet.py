"""A fleet for tests of playbooks: two balancers that are this machine, with a small agent each, and servers by name.

The balancers' Python runs in a mount namespace of its own, in which ``/run/llm-agent`` is the directory of that
balancer's agent: so the playbooks and modules need to know nothing of the test.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests import plain_ansible
from tests.fakes.agent import Running

from . import ansible_once
from .tree import ROOT

POOLS = {"gpu1/r0": "chat", "gpu2/r0": "chat", "gpu3/r0": "short", "gpu4/r0": "short"}
PYTHON = """\
#!/bin/sh
exec unshare --mount --propagation private sh -ec '
mount -t tmpfs tmpfs /run; mkdir /run/llm-agent; mount --bind {base} /run/llm-agent; exec {python} "$@"' sh "$@"
"""
needs_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0,
    reason="no mount namespace, in which two balancers could be this machine",
)


class Fleet:
    """An inventory of two balancers and four servers, and the agents of the balancers."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.agents: dict[str, Running] = {}
        balancers = {}
        for name in ("lb1", "lb2"):
            folder = base / name
            folder.mkdir()
            python = base / f"python-{name}"
            python.write_text(PYTHON.format(base=folder, python=sys.executable))
            python.chmod(0o755)
            here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": str(python)}
            balancers[name] = here
        self.balancers = balancers
        self.variables: dict[str, object] = {}  # of the balancers
        self.servers: dict[str, dict[str, Any]] = {
            replica.partition("/")[0]: {"llmops_pool": pool} for replica, pool in POOLS.items()
        }

    def start(self, *names: str) -> None:
        for name in names:
            world = {"replicas": {replica: {"pool": pool, "inflight": 0} for replica, pool in POOLS.items()}}
            self.agents[name] = Running(self.base / name, world, host=name)
            self.agents[name].__enter__()

    def stop(self, *names: str) -> None:
        for name in names:
            self.agents.pop(name).__exit__()

    def play(self, name: str, *options: str) -> ansible_once.Ended:
        group = {"hosts": self.balancers, "vars": self.variables}
        (self.base / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"children": {"llm_balancers": group, "llm_servers": {"hosts": self.servers}}}})
        )
        env = plain_ansible.environment(self.base, ANSIBLE_INVENTORY=str(self.base / "hosts.yml"), USER="alice")
        # the home of alice, whom this machine does not know, would be a folder beside the playbooks
        env |= {"ANSIBLE_REMOTE_TEMP": str(self.base / "remote")}
        return ansible_once.run([["ansible-playbook", f"llmops.vllm.{name}", *options]], cwd=ROOT, env=env)[0]

    def drained(self, name: str) -> list[str]:
        store = self.agents[name].store
        return [replica for replica in POOLS if not store.is_active(replica)]
