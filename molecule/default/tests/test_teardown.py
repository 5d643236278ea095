"""A server host that is to go: out of the balancers first, then stopped and removed. Last, because it is gone then."""

from __future__ import annotations

import pathlib

from conftest import ADDRESS, BALANCERS, SERVERS, Client, ansible, host

GONE = SERVERS[2]


def test_absent_host_leaves_the_fleet_and_nothing_behind(client: Client, tmp_path: pathlib.Path) -> None:
    wish = tmp_path / "wish.yml"
    wish.write_text(f"all:\n  hosts:\n    {GONE}: {{vllm_state: absent}}\n")
    command = ["ansible-playbook", "llmops.vllm.site", "-i", str(wish)]
    done = ansible(*command)
    assert done.returncode == 0, done.stdout[-3000:]

    server = host(GONE)
    assert not server.file("/etc/vllm/r0").exists
    assert not server.file("/var/lib/prometheus/node-exporter/vllm_r0.prom").exists
    assert not server.service("vllm@r0").is_running
    assert server.run("systemctl is-enabled vllm@r0").stdout.strip() != "enabled"
    assert server.run("nft list table inet vllm").rc != 0
    assert server.run("pgrep -u vllm").rc != 0, "a process of the service user is left"
    assert server.run("ls /srv/llm-models/tiny/a/SHA256SUMS").rc == 0, "weights stay"
    for balancer in BALANCERS:
        assert f"{ADDRESS[GONE]}:8000" not in host(balancer).check_output("cat /etc/nginx/nginx.conf")
        assert client.chat(balancer).status == 200

    again = ansible(*command, "--limit", GONE)  # the others are what idempotence has looked at
    assert again.returncode == 0
    assert again.stdout.count("changed=0") == again.stdout.count("unreachable=0"), again.stdout[-1500:]
