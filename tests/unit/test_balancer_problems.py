"""What the balancer's preflight says, and what it lets pass."""

from __future__ import annotations

import re

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import names as balancer
from ansible_collections.llmops.vllm.plugins.module_utils._check import balancer as check_balancer
from ansible_collections.llmops.vllm.plugins.module_utils._check import certificate as check_certificate

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
CLIENT_KEY = "sk-client-0123456789"
BACKEND_KEY = "backend-0123456789-0123456789-0123"


def settings(**changes):
    base = {
        "advert_interval": 0.2,
        "agent_port": 9177,
        "backend_keys": [BACKEND_KEY],
        "certificate_pem": CERTIFICATE,
        "client_keys": [{"name": "front", "key": CLIENT_KEY}],
        "default_pool": "chat",
        "http_port": 0,
        "key_pem": KEY,
        "members": [{"name": "lb1", "address": "192.0.2.11"}, {"name": "lb2", "address": "192.0.2.12"}],
        "pools": [
            {"name": "chat", "model_name": "m", "replicas": [{"id": "gpu1/r0", "address": "192.0.2.21", "port": 8000}]},
            {
                "name": "short",
                "model_name": "m",
                "replicas": [{"id": "gpu2/r0", "address": "192.0.2.22", "port": 8000}],
            },
        ],
        "port": 443,
        "status_port": 8081,
        "tls_certificate": "/certs/llm.crt",
        "tls_key": "/certs/llm.key",
        "tries": 2,
        "upstream_keepalive_timeout": 60,
        "virtual_address": "",
        "virtual_router_id": 77,
    }
    return {**base, **changes}


def pool(name, *replicas):
    return {"name": name, "model_name": "m", "replicas": [{"id": i, "address": a, "port": p} for i, a, p in replicas]}


def clients(*entries):
    return [dict(zip(("name", "key", "pool"), entry)) for entry in entries]


CASES = [
    ({}, None),
    ({"port": "443", "tries": "3"}, None),  # the spec accepts strings of digits and never converts
    ({"client_keys": clients(("a", CLIENT_KEY), ("a", CLIENT_KEY + "2"))}, None),  # rotation: two keys, one name
    ({"client_keys": clients(("a", "abcDEF.-_~+/0123==", "short"))}, None),
    ({"backend_keys": [BACKEND_KEY, "short"]}, None),  # only the first is sent
    ({"http_port": 443}, r"llm_balancer_http_port is 443, already taken by llm_balancer_port"),
    ({"agent_port": 8081}, r"llm_balancer_agent_port is 8081, already taken by llm_balancer_status_port"),
    (
        {"pools": [{"name": "chat", "replicas": [{"id": "a/r0", "address": "192.0.2.1", "port": 1}]}]},
        r"pool 'chat' without model_name",
    ),
    ({"status_port": 70000}, r"llm_balancer_status_port is 70000"),
    ({"pools": []}, r"llm_balancer_pools is empty"),
    ({"pools": [pool("chat")]}, r"has pool 'chat' without a replica"),
    (
        {"pools": [pool("chat", ("a/r0", "192.0.2.1", 1)), pool("Chat", ("b/r0", "192.0.2.2", 1))]},
        r"llmops_pool is 'Chat', and there is a pool 'chat'",
    ),
    (
        {"pools": [pool("chat", ("a/r0", "192.0.2.1", 1), ("b/r0", "192.0.2.1", 1))]},
        r"b/r0 and a/r0, which both .*2.1:1",
    ),
    ({"pools": [pool("chat", ("a/r0", "192.0.2.1", 1)), pool('x";', ("b/r0", "192.0.2.2", 1))]}, r"named 'x\";'"),
    ({"default_pool": "nope"}, r"llm_balancer_default_pool is 'nope'.*chat, short"),
    ({"client_keys": []}, r"llm_balancer_client_keys is empty"),
    ({"client_keys": clients(("a", "short"))}, r"client_keys\[0\] \(a\)\.key has 5 characters: 16"),
    ({"client_keys": clients(("a", 'x" "y"; } evil 0123'))}, r"client_keys\[0\] \(a\)\.key has characters"),
    ({"client_keys": clients(("a", "$request_uri_0123456"))}, r"client_keys\[0\] \(a\)\.key has characters"),
    ({"client_keys": clients(("a b", CLIENT_KEY))}, r"client_keys\[0\]\.name is 'a b'"),
    ({"client_keys": clients(("a", CLIENT_KEY), ("b", CLIENT_KEY))}, r"\(b\)\.key is also the key of a"),
    ({"client_keys": clients(("a", CLIENT_KEY, "zz"))}, r"\(a\)\.pool is 'zz'.*chat, short"),
    ({"client_keys": clients(("a", CLIENT_KEY), ("a", CLIENT_KEY + "2", "chat"))}, r"another key of a has ''"),
    ({"client_keys": clients(("a", BACKEND_KEY))}, r"\(a\)\.key is also a key between balancers and replicas"),
    ({"backend_keys": []}, r"llm_balancer_backend_keys is empty"),
    ({"backend_keys": ["0123456789abcdef"]}, r"backend_keys\[0\] has 16 characters: 32"),
    ({"tls_certificate": "", "certificate_pem": ""}, r"llm_balancer_tls_certificate is empty"),
    (
        {"certificate_pem": ""},
        r"llm_balancer_tls_certificate names the file /certs/llm\.crt on the controller, which is missing",
    ),
    ({"certificate_pem": KEY}, r"holds no CERTIFICATE in PEM form in the file /certs/llm\.crt on"),
    ({"certificate_pem": CERTIFICATE.replace("MIIB", "AAAA")}, r"holds a damaged CERTIFICATE in the file"),
    ({"key_pem": KEY.replace("MIIB", "MI!B")}, r"llm_balancer_tls_key holds a damaged PRIVATE KEY in the file"),
    (
        {"key_pem": KEY.replace("PRIVATE", "ENCRYPTED PRIVATE")},
        r"llm_balancer_tls_key is protected by a passphrase in the file",
    ),
    (
        {"tls_key": "/srv/llm/ops/inventories/production/certificates/balancer/key", "key_pem": ""},
        r"llm_balancer_tls_key names the file /srv/llm/ops/\S+/key on the controller, which is missing",
    ),
    (
        {"tls_certificate": "certificates/production/inventories/balancers/llm/server.crt", "certificate_pem": KEY},
        r"holds no CERTIFICATE in PEM form in the file certificates/\S+ on the controller",
    ),
    (
        {"tls_key": "MC4CAQAwBQYDK2VwBCIEIIGqsesamesesamesesamesesamesesamesesamesesam", "key_pem": ""},
        r"llm_balancer_tls_key is neither PEM text nor the path of a file",
    ),
    (
        {"tls_key": f"Bag Attributes\n{KEY.replace('MIIB', 'MI!B')}", "key_pem": KEY.replace("MIIB", "MI!B")},
        r"llm_balancer_tls_key holds a damaged PRIVATE KEY in its content",
    ),
    (
        {"tls_key": "-----BEGIN garbage", "key_pem": "-----BEGIN garbage"},
        r"llm_balancer_tls_key holds no PRIVATE KEY in PEM form in its content",
    ),
    ({"tries": 0}, r"llm_balancer_tries is 0"),
    ({"upstream_keepalive_timeout": 75}, r"upstream_keepalive_timeout is 75 s: .* below the 75 s"),
]


@pytest.mark.parametrize(("changes", "words"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_setting_problems_name_variable_and_mend(changes, words):
    found = check_balancer.messages(settings(**changes))
    if words is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert re.search(words, found[0]), found[0]


def test_no_problem_tells_a_secret():
    keys = clients(("a", 'secret"0123456789'), ("b", "secret"), ("c", "secret-0123456789"), ("d", "secret-0123456789"))
    text = " ".join(check_balancer.messages(settings(client_keys=keys, backend_keys=["secret-0123456789"])))
    assert "secret" not in text


def info(after="20300101000000Z", before="20200101000000Z", key="aa", names=("DNS:llm.example.com",)):
    return {
        "not_after": after,
        "not_before": before,
        "public_key_fingerprints": {"sha256": key},
        "subject_alt_name": list(names),
    }


@pytest.mark.parametrize(
    ("name", "certificate", "words"),
    [
        ("llm.example.com", info(), None),
        ("", info(names=()), None),
        ("LLM.example.com.", info(), None),
        ("a.example.com", info(names=["DNS:*.example.com"]), None),
        ("192.0.2.10", info(names=["IP:192.0.2.10"]), None),
        ("2001:db8::1", info(names=["IP:2001:db8:0:0:0:0:0:1"]), None),
        ("llm.example.com", info(after="20260101000000Z"), r"expired at 2026-01-01 00:00:00 UTC \(now 2026-06-01"),
        ("llm.example.com", info(before="20270101000000Z"), r"not valid before 2027-01-01"),
        ("llm.example.com", info(key="bb"), r"llm_balancer_tls_key does not belong"),
        (
            "other.example.com",
            info(),
            r"does not cover llm_balancer_server_name 'other.example.com'.*llm\.ex",
        ),
        ("a.b.example.com", info(names=["DNS:*.example.com"]), r"does not cover"),
        ("example.com", info(names=["DNS:*.example.com"]), r"does not cover"),
        ("192.0.2.10", info(names=["DNS:192.0.2.11", "IP:192.0.2.11"]), r"does not cover"),
        ("llm.example.com", info(names=()), r"no name at all"),
    ],
)
def test_certificate_problems(name, certificate, words):
    key = {"public_key_fingerprints": {"sha256": "aa"}}
    found = check_certificate.messages(name, certificate, key, "20260601000000Z")
    if words is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert re.search(words, found[0]), found[0]


@pytest.mark.parametrize("text", ["abc", "a.b+c/d~e_f-g==", "default"])
def test_exact_pattern_matches_nothing_else(text):
    pattern = f"^{balancer.exact_pattern(text)}$"
    assert re.search(pattern, text)
    for other in (text.upper(), text + "x", text[:-1], text.replace(".", "x"), text.replace("+", "")):
        assert other == text or not re.search(pattern, other)


def test_names_and_addresses():
    assert balancer.upstream_name("chat h100/ü") == "llm_chat_h100__"
    assert balancer.server_address("192.0.2.1", 8000) == "192.0.2.1:8000"
    assert balancer.server_address("2001:db8::1", 8000) == "[2001:db8::1]:8000"
