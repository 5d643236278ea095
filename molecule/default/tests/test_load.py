"""Load from the client host through both balancers, judged by the strict client."""

from __future__ import annotations

import json
import shlex
from typing import Any

from conftest import ADDRESS, BALANCERS, SERVERS, Client, host

READY_SECONDS = 300


def load_command(client: Client, *options: str) -> str:
    urls = [word for balancer in BALANCERS for word in ("--url", f"https://{ADDRESS[balancer]}/v1")]
    words = ["python3", "-m", "tests.load", *urls, "--key-file", "/root/load.key", "--model", client.model]
    words += ["--ca", "/opt/sandbox/pki/ca.crt", "--out", "/root/result.json", *options]
    key = shlex.quote(client.secrets["client_keys"][1]["key"])
    return f"umask 077; echo {key} > /root/load.key; cd /opt && {shlex.join(words)}"


def result(client: Client) -> dict[str, Any]:
    return json.loads(client.host.check_output("cat /root/result.json"))


def test_200_streamed_and_200_plain_requests_through_both_balancers(client: Client) -> None:
    done = client.host.run(load_command(client, "--requests", "400", "--workers", "8"))
    print(done.stdout)
    told = result(client)
    assert (told["good"], told["streamed"]) == (400, 200), done.stdout
    assert done.rc == 0


def test_killed_replica_costs_only_answers_that_had_begun(client: Client) -> None:
    """SIGKILL to every process of a replica under load; systemd starts it again, and it takes requests again."""
    victim = host(SERVERS[1])
    before = victim.check_output("systemctl show -p InvocationID --value vllm@r0")
    client.host.check_output("rm -f /root/result.json")
    options = ["--requests", "300", "--workers", "8", "--tokens", "16-48", "--allow-begun"]
    command = load_command(client, *options)
    client.host.check_output(f"rm -f /root/done; ( {{ {command}; echo $? > /root/done; }} > /root/load.log 2>&1 & )")
    client.host.check_output(
        "timeout 60 sh -c 'until grep -q . /root/load.log 2>/dev/null || [ -e /root/done ]; do sleep 0.1; done'"
    )
    victim.check_output("systemctl kill -s KILL vllm@r0")
    client.host.check_output("timeout 300 sh -c 'until [ -e /root/done ]; do sleep 0.2; done'")
    told = result(client)
    print(client.host.check_output("cat /root/load.log"))
    assert told["requests"] == 300
    assert told["failed_before_first_byte"] == 0, told["failures"]
    assert told["failed"] < 20, "only what was running on one replica may be lost"
    victim.check_output(
        f"timeout {READY_SECONDS} sh -c 'until curl -sf http://{ADDRESS[SERVERS[1]]}:8000/health; do sleep 0.5; done'"
    )
    assert victim.check_output("systemctl show -p InvocationID --value vllm@r0") != before
