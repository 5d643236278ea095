"""The server hosts: units, sockets, files, hardening, firewall."""

from __future__ import annotations

import json

import pytest
from conftest import ADDRESS, SERVERS, Client, host

HARDENING_AT_MOST = 2.0


@pytest.mark.parametrize("name", SERVERS)
def test_replica_runs_as_service_user_and_starts_at_boot(name: str) -> None:
    unit = host(name).service("vllm@r0")
    assert unit.is_running
    assert unit.is_enabled
    users = host(name).check_output("ps -o user= -p $(systemctl show -p MainPID --value vllm@r0)").split()
    assert users == ["vllm"]


@pytest.mark.parametrize("name", SERVERS)
def test_node_exporter_tells_which_release_runs(name: str) -> None:
    server = host(name)
    release = server.check_output("basename $(readlink /etc/vllm/r0/current)")
    told = server.check_output(f"curl -sf http://{ADDRESS[name]}:9100/metrics | grep '^llmops_release_info'")
    assert f'name="r0",release="{release}"' in told and 'model="tiny",model_version="a"' in told


@pytest.mark.parametrize("name", SERVERS)
def test_replica_listens_on_the_private_address_only(name: str) -> None:
    listeners = host(name).check_output("ss -Hltn 'sport = :8000'").splitlines()
    assert [line.split()[3] for line in listeners] == [f"{ADDRESS[name]}:8000"]


def test_unit_is_hardened() -> None:
    told = host(SERVERS[0]).check_output("systemd-analyze security --no-pager vllm@r0.service | tail -1")
    score = float(told.split("vllm@r0.service:")[1].split()[0])
    assert score <= HARDENING_AT_MOST, told


def test_key_is_in_no_process_list_journal_or_world_readable_file(client: Client) -> None:
    key = client.secrets["backend_keys"][0]
    server = host(SERVERS[0])
    # The shell that searches has the key in its own command line, so it is fed through standard input.
    server.run(f"umask 077; cat > /root/needle <<'E'\n{key}\nE")
    try:
        assert server.run("ps -eo args | grep -F -f /root/needle | grep -v grep").stdout == ""
        assert server.run("journalctl --no-pager | grep -F -f /root/needle").stdout == ""
        readable = server.run("find /etc /opt/vllm /var -xdev -type f -perm -o+r -size -1M -print0 2>/dev/null"
                              " | xargs -0 grep -l -F -f /root/needle").stdout  # fmt: skip
        assert readable == ""
        assert server.run("grep -rlF -f /root/needle /etc/vllm").stdout != "", "the key is where the replica reads it"
    finally:
        server.run("rm -f /root/needle")


def test_release_files_are_closed_to_others() -> None:
    current = host(SERVERS[0]).file("/etc/vllm/r0/current")
    assert current.is_symlink
    for name in ("config.yaml", "environment"):
        file = host(SERVERS[0]).file(f"/etc/vllm/r0/current/{name}")
        assert (file.user, file.group, file.mode) == ("root", "vllm", 0o640)


def test_weights_are_whole_and_cannot_be_changed_by_the_service() -> None:
    server = host(SERVERS[0])
    path = server.check_output("readlink -f /etc/vllm/r0/current/model")
    assert server.run(f"cd {path} && sha256sum --quiet -c SHA256SUMS").rc == 0
    assert server.run(f"runuser -u vllm -- cat {path}/config.json").rc == 0
    assert server.run(f"runuser -u vllm -- touch {path}/config.json").rc != 0


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models"])
def test_firewall_refuses_a_third_host(client: Client, path: str) -> None:
    url = f"http://{ADDRESS['gpu1']}:8000{path}"
    refused = client.host.run(f"curl -s -o /dev/null --max-time 3 {url}")
    assert refused.rc in (7, 28), f"the client host reached {url} (curl ended with {refused.rc})"


@pytest.mark.parametrize("source", ["lb1", "lb2", "mon1"])
def test_firewall_lets_balancers_and_monitors_in(source: str) -> None:
    assert host(source).run(f"curl -sf --max-time 10 http://{ADDRESS['gpu1']}:8000/health").rc == 0


def test_firewall_owns_one_table_only() -> None:
    tables = host(SERVERS[0]).check_output("nft -j list tables")
    names = [row["table"]["name"] for row in json.loads(tables)["nftables"] if "table" in row]
    assert "vllm" in names


def test_replica_wants_a_key() -> None:
    status = host("lb1").check_output(
        f"curl -s -o /dev/null -w '%{{http_code}}' http://{ADDRESS['gpu1']}:8000/v1/models"
    )
    assert status == "401"
