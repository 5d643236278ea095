"""Every playbook under the oldest, a middle and the newest ansible-core: parsed by its name, then run dry.

The dry run takes this machine for hosts of inventories/example. Since it is no host of ours, it is shown to ansible
through a mount namespace in which only a folder of the test can be written, and a network namespace without a network.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.fakes.agent import Running
from tools import environments
from tools.checkout import lean_environment
from tools.sandbox.pki import ensure_certificate

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORES = ["2.17", "2.19", "2.21"]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
# They ask Prometheus, or replicas that serve: run by tests/repo/test_cost_report.py and test_benchmark.py.
NOT_HERE = ["cost_report", "benchmark"]
# Of each kind one host; gpu1 carries two replicas, gpu4 is of the other pool.
HOSTS = ["lb1", "gpu1", "gpu4"]
BALANCERS = ["lb1", "lb2"]
# Those that a playbook must have reached; the check runs once for all.
REACHED = dict.fromkeys(["balancer_update", "drain", "undrain"], set(BALANCERS))
REACHED |= {"check": {"lb1"}, "plan": {"localhost"}}
# What a playbook cannot do without. These speak with all balancers, and ask the agent at its place.
ALL_BALANCERS = ["--limit", ",".join(BALANCERS)]
OPTIONS = dict.fromkeys(["drain", "undrain"], [*ALL_BALANCERS, "-e", "llmops_target=gpu1/r0"])
OPTIONS["balancer_update"] = ALL_BALANCERS
# These refuse a limit: hosts that are not this machine are some that do not answer.
OPTIONS |= {name: [] for name in ("rollout", "rollback", "restart", "reboot")}
OPTIONS["plan"] = []  # of the controller alone
UNSHARE = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-ec"]
READ_ONLY = 'mount --bind "$0" "$0"; mount -o remount,bind,ro /; exec "$@"'
AGENT = 'mount -t tmpfs tmpfs /run; mkdir /run/llm-agent; mount --bind "$0/agent" /run/llm-agent; '


def core(version: str) -> pathlib.Path:
    """Return the programs of that ansible-core; without a Python for it the test is not run, and says why."""
    try:
        return environments.ensure(f"core-{version}") / "bin"
    except environments.NoInterpreter as reason:
        pytest.skip(str(reason))


def environment(programs: pathlib.Path, scratch: pathlib.Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        **lean_environment(),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(scratch),
        "ANSIBLE_DEPRECATION_WARNINGS": "true",
        "ANSIBLE_HOME": str(scratch / "home"),
        "ANSIBLE_INJECT_FACT_VARS": "false",
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_REMOTE_TMP": str(scratch / "remote"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(scratch / "ssh"),
    }


def play(command: list[str], env: dict[str, str]) -> str:
    """Run ansible to its end without an error or a warning of any kind; deprecations are warnings."""
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=900)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert re.findall(r"^\[(?:DEPRECATION )?WARNING\].*(?:\n.+)*", told, re.MULTILINE) == []
    return done.stdout


@pytest.fixture(scope="module")
def as_local_hosts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The example with what makes its hosts this machine, as options of ansible-playbook."""
    base = tmp_path_factory.mktemp("local")
    ensure_certificate(base)
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "/usr/bin/python3",
        "llm_balancer_tls_certificate": str(base / "server.crt"),
        "llm_balancer_tls_key": str(base / "server.key"),
        "llmops_allow_untested_os": True,
        "vllm_disk_gib": 0,
    }
    (base / "local.yml").write_text(json.dumps({"all": {"hosts": dict.fromkeys([*HOSTS, "lb2"], here)}}))
    shapes = json.loads((ROOT / "tests" / "data" / "model_shapes.json").read_text())
    (base / "config.json").write_text(json.dumps(next(iter(shapes.values()))))
    planned = ["-e", f"llmops_plan_model_config={base / 'config.json'}"]
    return ["-i", str(ROOT / "inventories" / "example"), "-i", str(base / "local.yml"), *planned]


@pytest.fixture
def scratch() -> Iterator[pathlib.Path]:
    """The folder that can be written in; its name is short, since those of sockets below it may have 107 characters."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


@pytest.mark.parametrize("version", CORES)
def test_playbooks_parse(version: str, scratch: pathlib.Path) -> None:
    programs = core(version)
    names = [f"llmops.vllm.{name}" for name in PLAYBOOKS]
    example = ["-i", str(ROOT / "inventories" / "example")]
    told = play(
        [str(programs / "ansible-playbook"), *example, "--syntax-check", *names], environment(programs, scratch)
    )
    assert told.count("playbook: ") == len(PLAYBOOKS)


@pytest.mark.parametrize("version", CORES)
@pytest.mark.parametrize("name", [name for name in PLAYBOOKS if name not in NOT_HERE])
def test_dry_run(name: str, version: str, as_local_hosts: list[str], scratch: pathlib.Path) -> None:
    programs = core(version)
    refused = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True, text=True)
    if refused.returncode != 0:
        pytest.skip(f"no namespace to keep the dry run from writing to this machine: {refused.stderr.strip()}")
    options = OPTIONS.get(name, ["--limit", ",".join(HOSTS)])
    command = [
        str(programs / "ansible-playbook"),
        *as_local_hosts,
        *options,
        f"llmops.vllm.{name}",
        "--check",
        "--diff",
    ]
    world = {"replicas": {"gpu1/r0": {"pool": "chat-h100"}, "gpu2/r0": {"pool": "chat-h100"}}}
    with Running(scratch / "agent", world):
        shell = (AGENT if name in OPTIONS else "") + READ_ONLY
        told = play([*UNSHARE, shell, str(scratch), *command], environment(programs, scratch))
    recap = dict(re.findall(r"^(\S+) +: ok=([1-9]\d*) .* failed=0 ", told, re.MULTILINE))
    assert set(recap) >= REACHED.get(name, {"gpu1", "gpu4"})
