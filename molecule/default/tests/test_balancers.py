"""The service as clients see it, through each balancer."""

from __future__ import annotations

import json

import pytest
from conftest import ADDRESS, BALANCERS, SERVERS, Client, host

FORBIDDEN = [
    "/metrics",
    "/docs",
    "/openapi.json",
    "/invocations",
    "/tokenize",
    "/scale_elastic_ep",
    "/health",
    "/v1/../metrics",
    "/metrics/../v1/load_lora_adapter",
    "//metrics",
    "/v1/load_lora_adapter",
]


@pytest.mark.parametrize("balancer", BALANCERS)
def test_chat_completion(client: Client, balancer: str) -> None:
    answer = client.chat(balancer, temperature=0)
    assert answer.status == 200, answer.body
    choice = answer.json()["choices"][0]
    assert choice["message"]["content"].strip()
    assert choice["finish_reason"] in ("stop", "length")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("balancer", BALANCERS)
def test_stream_arrives_in_pieces_and_ends_properly(client: Client, balancer: str) -> None:
    answer = client.chat(balancer, stream=True, ignore_eos=True, stream_options={"include_usage": True})
    events = [line[6:] for line in answer.body.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    parsed = [json.loads(event) for event in events[:-1]]
    assert parsed[-1]["usage"]["completion_tokens"] == 16
    assert any(choice["finish_reason"] == "length" for event in parsed for choice in event["choices"])


@pytest.mark.parametrize("balancer", BALANCERS)
def test_keys_are_refused_and_accepted(client: Client, balancer: str) -> None:
    url = f"https://{ADDRESS[balancer]}/v1/models"
    for key in (None, "sk-wrong", client.secrets["backend_keys"][0]):
        answer = client.request(url, None, key)
        assert answer.status == 401
        assert answer.json()["error"]["message"]
    for entry in client.secrets["client_keys"]:
        answer = client.request(url, None, entry["key"])
        assert answer.status == 200
        assert client.model in [model["id"] for model in answer.json()["data"]]


@pytest.mark.parametrize("path", FORBIDDEN)
def test_forbidden_paths_reach_no_replica(client: Client, path: str) -> None:
    answer = client.request(f"https://{ADDRESS['lb1']}{path}", None, "", "--path-as-is")
    assert answer.status == 404
    assert answer.json()["error"]["code"]
    posted = client.request(f"https://{ADDRESS['lb1']}{path}", {}, "", "--path-as-is")
    assert posted.status == 404


@pytest.mark.parametrize("balancer", BALANCERS)
def test_healthz_needs_no_key(client: Client, balancer: str) -> None:
    assert client.request(f"https://{ADDRESS[balancer]}/healthz", None, None).status == 200


def test_certificate_is_checked_by_the_client(client: Client) -> None:
    done = client.host.run(f"curl -s --max-time 5 https://{ADDRESS['lb1']}/healthz")
    assert done.rc == 60, "a client without the private CA must not trust the balancer"


@pytest.mark.parametrize("balancer", BALANCERS)
def test_access_log_names_client_pool_and_replica_but_no_key(client: Client, balancer: str) -> None:
    answer = client.chat(balancer)
    log = host(balancer).check_output("cat /var/log/nginx/llm_access.log")
    lines = [json.loads(line) for line in log.splitlines()]
    mine = [line for line in lines if answer.headers["x-request-id"] in line.values()]
    assert len(mine) == 1
    assert "demo" in mine[0].values()
    assert "chat-tiny" in mine[0].values()
    assert any(ADDRESS[server] in str(value) for server in SERVERS for value in mine[0].values())
    assert client.key not in log


@pytest.mark.parametrize("balancer", BALANCERS)
def test_only_tls_listens_to_the_world(balancer: str) -> None:
    rows = [line.split()[3] for line in host(balancer).check_output("ss -Hltn").splitlines()]
    outside = {row for row in rows if not row.startswith(("127.", "[::1]"))}
    # agent and exporters have the private address alone
    private = {f"{ADDRESS[balancer]}:{port}" for port in (9177, 9100, 9113, 3903)}
    assert private <= outside
    assert {row.rsplit(":", 1)[1] for row in outside - private} <= {"443", "22"}, rows


@pytest.mark.parametrize("balancer", BALANCERS)
def test_secrets_are_closed_to_others(client: Client, balancer: str) -> None:
    for key in (client.key, client.secrets["backend_keys"][0]):
        found = host(balancer).run(
            f"find /etc /var/log -xdev -type f -perm -o+r -print0 | xargs -0 grep -lF -- '{key}'"
        )
        assert found.stdout == ""


def test_bad_json_gets_the_shape_of_openai(client: Client) -> None:
    answer = client.request(f"https://{ADDRESS['lb1']}/v1/chat/completions", {"model": "no-such-model", "messages": []})
    assert 400 <= answer.status < 500
    assert answer.json()["error"]["message"]
