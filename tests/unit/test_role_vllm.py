"""The role vllm as text: defaults and spec, unit, firewall table, the table of profiles in its README."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils import _fleet
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.profiles import COMMON, PROFILES

from tests.unit.conftest import ModuleResult

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "vllm"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
SPEC = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())


def render(name: str, **variables: Any) -> str:
    loader = jinja2.FileSystemLoader(str(ROLE / "templates"))
    environment = jinja2.Environment(loader=loader, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["comment"] = lambda text: f"# {text}"
    plain = {key: value for key, value in {**DEFAULTS, **VARS}.items() if "{{" not in str(value)}
    return environment.get_template(name).render({"ansible_managed": "managed", **plain, **variables})


def test_spec_of_a_replica_knows_the_keys_of_the_fleet() -> None:
    assert set(SPEC["vllm_replicas"]["options"]) == set(_fleet.REPLICA_KEYS)


def test_unit_keeps_what_was_measured() -> None:
    unit = render("vllm@.service.j2", __vllm_metrics_directory="").splitlines()
    for line in (
        "KillMode=mixed", "Restart=always", "RestartPreventExitStatus=2", "TimeoutStartSec=infinity", "Type=exec",
        "StartLimitIntervalSec=1800", "StartLimitBurst=5", "NoNewPrivileges=yes", "ProtectSystem=strict",
        "ExecStart=/etc/vllm/%i/current/env/bin/vllm serve --config /etc/vllm/%i/current/config.yaml",
    ):  # fmt: skip
        assert line in unit
    assert not [
        line for line in unit if line.startswith(("MemoryDenyWriteExecute", "PrivateDevices", "PrivateNetwork"))
    ]


@pytest.mark.parametrize(("directory", "tells"), [("/var/lib/node", True), ("", False)])
def test_unit_tells_the_node_exporter_what_it_has_started(directory: str, tells: bool) -> None:
    unit = render("vllm@.service.j2", __vllm_metrics_directory=directory).splitlines()
    copy = "install -D -m 0644 /etc/vllm/%i/current/release.prom /var/lib/node/vllm_%i.prom"
    assert (f"ExecStartPost=-+/usr/bin/{copy}" in unit) == tells
    assert any(line.startswith("ExecStartPost") for line in unit) == tells
    # a release of before there was such a file must not leave the word of the one before it
    assert ("ExecStartPre=-+/usr/bin/rm -f /var/lib/node/vllm_%i.prom" in unit) == tells


@pytest.mark.parametrize(("gpus", "checks"), [([], False), ([2, 3], True)])
def test_drop_in_waits_longer_than_the_process_and_checks_gpus(gpus: list[int], checks: bool) -> None:
    replica = {"alias": "m@a", "version": "1", "gpus": gpus, "settings": {"shutdown-timeout": 300}}
    text = render("unit.conf.j2", __vllm_replica=replica)
    assert "TimeoutStopSec=330" in text
    assert ("ExecStartPre=/opt/vllm/libexec/gpu-free 2,3" in text) == checks


def test_firewall_replaces_its_own_table_only() -> None:
    text = render(
        "vllm.nft.j2",
        __vllm_replicas=[{"port": 8001}, {"port": 8000}],
        __vllm_firewall_members={"ipv4": ["192.0.2.11", "192.0.2.128/25"], "ipv6": [], "names": []},
    )
    assert "flush ruleset" not in text
    assert set(re.findall(r"^(?:delete )?table (\w+ \w+)", text, re.MULTILINE)) == {"inet vllm"}
    assert "elements = { 8000, 8001 }" in text
    assert "elements = { 192.0.2.11, 192.0.2.128/25 }" in text
    assert text.count("elements") == 2  # an empty set has none


def test_watchdog_has_the_rights_of_its_job_and_no_others() -> None:
    unit = render("vllm-watchdog.service.j2").splitlines()
    assert "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_ADMIN" in unit
    for line in ("Type=oneshot", "ProtectSystem=strict", "NoNewPrivileges=yes", "StateDirectoryMode=0700",
                 "RuntimeDirectoryPreserve=yes", "DeviceAllow=/dev/nvidiactl rw"):  # fmt: skip
        assert line in unit
    # it must see the replicas' processes
    assert not [
        line for line in unit if line.startswith(("ProtectProc", "ProcSubset", "PrivateDevices", "PrivateUsers"))
    ]
    assert "OnUnitInactiveSec=10" in render("vllm-watchdog.timer.j2").splitlines()


def test_watchdog_starts_as_its_unit_says(tmp_path: pathlib.Path, run_module: Callable[..., ModuleResult]) -> None:
    run_module("host_program", {"name": "watchdog", "path": str(tmp_path / "code")})
    own = {"id": "gpu1/r0", "name": "r0", "unit": "vllm@r0.service", "pool": "chat", "url": "http://127.0.0.1:1"}
    agent = {"name": "lb1", "address": "127.0.0.1", "port": 1}
    config = {"api": 1, "agents": [agent], "replicas": [own], "run": str(tmp_path / "run")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    start = re.search(r"^ExecStart=\S+ -m (\S+) \S+$", render("vllm-watchdog.service.j2"), re.MULTILINE)
    assert start is not None
    command = [sys.executable, "-m", start.group(1), str(tmp_path / "config.json")]
    environment = {"PYTHONPATH": str(tmp_path / "code/current"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["event"] == "agent_silent"


def test_locks_have_hashes_and_name_no_host() -> None:
    for lock in (ROLE / "files").glob("requirements-*.txt"):
        text = lock.read_text()
        assert "://" not in text
        pins = re.findall(r"^[A-Za-z0-9_.\[\]-]+==\S+.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)), lock.name


@pytest.mark.parametrize(
    ("lock", "pin"),
    [("requirements-uv.txt", f"uv=={DEFAULTS['vllm_uv_version']} "),
     (f"requirements-{DEFAULTS['vllm_version']}.txt", f"vllm=={DEFAULTS['vllm_version']} ")],
)  # fmt: skip
def test_lock_is_that_of_the_default_version(lock: str, pin: str) -> None:
    assert f"\n{pin}" in "\n" + (ROLE / "files" / lock).read_text()


def profile_table() -> str:
    """The table of the README, made from the data."""
    rows = ["| flag | value | why |", "|---|---|---|"]
    parts = ["### Every profile", "", *rows]
    parts += [f"| `{flag.name}` | `{_text(flag.value)}` | {flag.why} |" for flag in COMMON]
    for profile in PROFILES.values():
        parts += ["", f"### {profile.name}", "", profile.purpose, "", *rows]
        for flag in profile.flags:
            cpu = f" Not without a GPU: {flag.not_on_cpu}." if flag.not_on_cpu else ""
            parts.append(f"| `{flag.name}` | `{_text(flag.value)}` | {flag.why}{cpu} |")
        if profile.queue_depth is not None:
            value = f"max-num-seqs + {profile.queue_depth}"
            parts.append(f"| `max-num-queued-reqs` | `{value}` | {profile.queue_why} |")
    return "\n".join(parts)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_readme_shows_the_profiles_as_they_are() -> None:
    readme = (ROLE / "README.md").read_text()
    shown = readme.split("<!-- profiles -->\n")[1].split("\n<!-- /profiles -->")[0]
    assert shown == profile_table()


def test_readme_shows_every_variable() -> None:
    readme = (ROLE / "README.md").read_text()
    assert [name for name in DEFAULTS if f"`{name}`" not in readme] == []
