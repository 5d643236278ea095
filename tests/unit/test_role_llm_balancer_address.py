"""The address that balancers share: keepalived's files of each host, and the program around it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import names as balancer

from tests import balancer_role

MEMBERS = [{"name": "lb1", "address": "192.0.2.11"}, {"name": "lb2", "address": "192.0.2.12"}]
PROGRAM = "/usr/local/lib/llm-balancer/address"
UNITS = ["keepalived_unit.conf.j2", "llm_address_wait.service.j2", "nginx_unit.conf.j2"]


def render(template: str, host: str = "lb1", **changes: Any) -> str:
    settings = {
        "__llm_balancer_address_program": PROGRAM,
        "__llm_balancer_interface": "eth0",
        "__llm_balancer_run_dir": "/run/llm-agent",
        "inventory_hostname": host,
        "llm_balancer_members": MEMBERS,
        "llm_balancer_virtual_address": "192.0.2.10/24",
    }
    return balancer_role.render(template, **{**settings, **changes})


def words(host: str, **changes: Any) -> list[list[str]]:
    lines = render("keepalived.conf.j2", host, **changes).splitlines()
    return [line.split() for line in lines if line.strip() and not line.strip().startswith("#")]


def after(found: list[list[str]], opening: list[str]) -> list[str]:
    return found[found.index(opening) + 1]


@pytest.mark.parametrize(
    ("host", "own", "other", "priority"),
    [("lb1", "192.0.2.11", "192.0.2.12", 250), ("lb2", "192.0.2.12", "192.0.2.11", 230)],
)
def test_each_host_speaks_to_the_other(host: str, own: str, other: str, priority: int) -> None:
    found = words(host)
    assert ["unicast_src_ip", own] in found
    assert after(found, ["unicast_peer", "{"]) == [other]
    assert ["priority", str(priority)] in found
    assert ["state", "BACKUP"] in found
    assert ["nopreempt"] in found
    assert ["advert_int", "0.2"] in found
    assert after(found, ["virtual_ipaddress", "{"]) == ["192.0.2.10/24", "dev", "eth0"]


def test_hosts_differ_in_nothing_but_name_addresses_and_priority() -> None:
    pairs = zip(words("lb1"), words("lb2"))
    assert [one[0] for one, two in pairs if one != two] == ["router_id", "priority", "unicast_src_ip", "192.0.2.12"]


def test_every_priority_is_one_of_vrrp_and_the_order_is_that_of_the_group() -> None:
    many = [{"name": f"lb{n}", "address": f"192.0.2.{n}"} for n in range(1, 31)]
    found = [int(dict(w for w in words(m["name"], llm_balancer_members=many) if len(w) == 2)["priority"]) for m in many]
    assert found == sorted(found, reverse=True)
    assert all(1 <= priority <= 254 for priority in found)
    assert len(set(found[:12])) == 12


def test_a_single_balancer_has_no_peers() -> None:
    assert "unicast" not in render("keepalived.conf.j2", llm_balancer_members=MEMBERS[:1])


def test_the_file_of_the_agent_decides_alone() -> None:
    text = render("keepalived.conf.j2")
    assert "file /run/llm-agent/hold\n  weight 0" in text
    assert "hold weight 0" in text
    assert "script" not in text


@pytest.mark.skipif(shutil.which("keepalived") is None, reason="needs the keepalived program")
@pytest.mark.skipif(os.geteuid() != 0, reason="keepalived reads its configuration as root")
@pytest.mark.parametrize("host", ["lb1", "lb2"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"llm_balancer_members": [{**member} for member in MEMBERS if member["name"] == "lb1"]},
        {"llm_balancer_advert_interval": 1, "llm_balancer_virtual_router_id": 255},
        {
            "llm_balancer_members": [{"name": f"lb{n}", "address": f"2001:db8::{n}"} for n in (1, 2, 3)],
            "llm_balancer_virtual_address": "2001:db8::10/64",
        },
    ],
    ids=["two", "one", "slow", "IPv6"],
)
def test_keepalived_accepts_it(tmp_path: pathlib.Path, host: str, changes: dict[str, Any]) -> None:
    if host not in [member["name"] for member in changes.get("llm_balancer_members", MEMBERS)]:
        pytest.skip("no such host in this group")
    multicast = 0x1000  # IFF_MULTICAST: without it keepalived refuses to speak VRRP there
    flags = {path.parent.name: int(path.read_text(), 16) for path in pathlib.Path("/sys/class/net").glob("*/flags")}
    interface = next((name for name in sorted(flags) if name != "lo" and flags[name] & multicast), None)
    if interface is None:
        pytest.skip("no interface on which keepalived would speak VRRP")
    path = tmp_path / "keepalived.conf"
    path.write_text(render("keepalived.conf.j2", host, __llm_balancer_interface=interface, **changes))
    done = subprocess.run(
        ["keepalived", "--config-test", "--use-file", str(path)], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("template", UNITS)
def test_systemd_knows_every_line(tmp_path: pathlib.Path, template: str) -> None:
    unit = tmp_path / "llm-example.service"
    whole = "" if "ExecStart=" in render(template) else "\n[Service]\nExecStart=/bin/true\n"
    unit.write_text(render(template).replace(PROGRAM, "/bin/true") + whole)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "llm-example" in line] == []


def test_killed_keepalived_leaves_no_address_behind() -> None:
    text = render("keepalived_unit.conf.j2")
    assert f"ExecStopPost=+{PROGRAM} release" in text
    assert "Restart=always\nRestartSec=1" in text


def test_stopping_nginx_waits_for_streams_as_long_as_asked() -> None:
    text = render("nginx_unit.conf.j2", llm_balancer_stop_timeout=45)
    assert (
        "ExecStop=\nExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/45/TERM/5 --pidfile /run/nginx.pid"
        in text
    )
    assert "TimeoutStopSec=55" in text
    assert "RestartSec=100ms" in text


class Host:
    """A directory in place of /run, and programs in place of those that would touch this machine."""

    def __init__(self, base: pathlib.Path, wait: int = 0) -> None:
        self.run_dir, self.base = base / "run", base
        self.program = base / "address"
        (base / "bin").mkdir()
        self.program.write_text(
            render("llm_address.sh.j2", __llm_balancer_run_dir=str(self.run_dir), llm_balancer_agent_wait=wait)
        )

    def stub(self, name: str, body: str) -> None:
        path = self.base / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def call(self, verb: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{self.base / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", str(self.program), verb], env=env, check=False, capture_output=True, text=True, timeout=20
        )

    def hold(self) -> str:
        return (self.run_dir / "hold").read_text()

    @property
    def away(self) -> bool:
        return (self.run_dir / "away").exists()


def test_after_a_boot_nobody_holds_the_address_before_somebody_spoke(tmp_path: pathlib.Path) -> None:
    host = Host(tmp_path)
    assert host.call("prepare").returncode == 0
    assert host.hold() == "2\n"
    assert host.away


@pytest.fixture
def of_agent() -> Iterator[Host]:
    """A host whose directory belongs to the agent, which is not root, and can be reached by it."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        host = Host(pathlib.Path(folder))
        host.run_dir.mkdir()
        os.chown(host.run_dir, 65534, 65534)
        yield host


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_agent_can_write_what_was_written_before_it(of_agent: Host) -> None:
    assert of_agent.call("prepare").returncode == 0
    assert {path.name: path.stat().st_uid for path in of_agent.run_dir.iterdir()} == {"hold": 65534, "away": 65534}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["hold", "away"])
def test_links_of_the_agent_lead_root_nowhere(of_agent: Host, name: str) -> None:
    secret = of_agent.base / "shadow"
    secret.touch(0o600)
    (of_agent.run_dir / name).symlink_to(secret)
    of_agent.call("prepare")
    of_agent.stub("systemctl", "exit 0")
    of_agent.call("wait")
    assert (secret.read_text(), secret.stat().st_uid, secret.stat().st_mode & 0o777) == ("", 0, 0o600)


@pytest.mark.parametrize("said", ["0\n", "1\n"])
def test_what_the_agent_said_survives_keepalived_and_the_wait(tmp_path: pathlib.Path, said: str) -> None:
    host = Host(tmp_path)
    host.run_dir.mkdir()
    (host.run_dir / "hold").write_text(said)
    host.stub("systemctl", "exit 0")
    assert [host.call(verb).returncode for verb in ("prepare", "wait")] == [0, 0]
    assert host.hold() == said
    assert not host.away


def test_an_agent_that_never_speaks_keeps_the_address_from_nobody(tmp_path: pathlib.Path) -> None:
    host = Host(tmp_path)
    host.stub("systemctl", 'test "$*" = "--quiet is-active nginx.service"')
    host.call("prepare")
    done = host.call("wait")
    assert "said nothing within 0 s" in done.stdout
    assert host.hold() == "0\n"
    assert not host.away


def test_without_nginx_the_address_is_not_taken_until_it_runs(tmp_path: pathlib.Path) -> None:
    host = Host(tmp_path)
    # NGINX is asked once in vain, then it runs
    host.stub("systemctl", f"test -e {tmp_path}/asked || {{ touch {tmp_path}/asked; exit 3; }}")
    host.stub("sleep", f"cp {tmp_path}/run/hold {tmp_path}/seen")
    host.call("prepare")
    assert host.call("wait").returncode == 0
    assert (tmp_path / "seen").read_text() == "2\n"
    assert host.hold() == "0\n"


@pytest.mark.parametrize("status", [0, 2])
def test_release_takes_the_address_off_and_never_fails(tmp_path: pathlib.Path, status: int) -> None:
    host = Host(tmp_path)
    host.stub("ip", f'echo "$*" > {tmp_path}/ip; exit {status}')
    assert host.call("release").returncode == 0
    assert (tmp_path / "ip").read_text() == "address del 192.0.2.10/24 dev eth0\n"


def test_unknown_verb_is_refused(tmp_path: pathlib.Path) -> None:
    assert Host(tmp_path).call("stop").returncode == 64


FACTS = {
    "interfaces": ["lo", "eth0", "br-lan"],
    "lo": {"device": "lo", "ipv4": {"address": "127.0.0.1"}},
    "eth0": {"device": "eth0", "ipv4": {"address": "192.0.2.11"}, "ipv4_secondaries": [{"address": "192.0.2.10"}]},
    "br_lan": {"device": "br-lan", "ipv6": [{"address": "2001:db8::11", "prefix": "64"}]},
    "default_ipv4": {"address": "192.0.2.11", "interface": "eth0"},
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [("192.0.2.11", "eth0"), ("192.0.2.10", "eth0"), ("2001:db8::11", "br-lan"), ("203.0.113.1", ""), ("", "")],
)
def test_interface_is_the_one_that_carries_the_address(address: str, interface: str) -> None:
    assert balancer.interface(FACTS, address) == interface


def test_interface_of_a_host_without_network_facts() -> None:
    assert balancer.interface({"distribution": "Debian"}, "192.0.2.11") == ""


def test_members_come_from_the_inventory_in_its_order() -> None:
    hostvars = {"lb2": {"ansible_host": "192.0.2.12"}, "lb1": {"llmops_address": "192.0.2.11", "ansible_host": "x"}}
    assert balancer.members(hostvars, ["lb1", "lb2"]) == MEMBERS
