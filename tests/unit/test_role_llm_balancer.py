"""Role llm_balancer without a host: spec and defaults are one, templates render what they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.balancer_role import CLIENTS, DEFAULTS, ROLE, computed, render
from tests.unit.agent.nginx_lab import LUA_MODULE

SPEC = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]


def test_spec_and_defaults_are_equal():
    assert list(SPEC) == list(DEFAULTS)
    types = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
    for name, value in DEFAULTS.items():
        if computed(value):
            assert "default" not in SPEC[name], name
        else:
            assert SPEC[name]["default"] == value, name
            assert value.__class__ is types[SPEC[name]["type"]], name


def test_every_default_has_a_sentence_above_it():
    lines = (ROLE / "defaults" / "main.yml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"llm_balancer_\w+:", line):
            assert lines[number - 1].startswith("#"), line


def test_readme_names_every_variable():
    readme = (ROLE / "README.md").read_text()
    assert [name for name in DEFAULTS if f"`{name}`" not in readme] == []


def test_secrets_stand_in_the_keys_file_alone():
    secrets = [entry["key"] for entry in CLIENTS] + ["backend-0123456789"]
    keys, nginx = render("nginx_keys.conf.j2"), render("nginx.conf.j2")
    assert not any(secret in nginx for secret in secrets)
    assert '"~^[Bb]earer sk-front-0123456789[.]a[+]b$" "front";' in keys
    assert '"~^[Bb]earer sk-front-new-0123456789$" "front";' in keys
    assert '"~^batch$" "big.Pool";' in keys
    assert '"~^front$"' not in keys
    assert "Bearer backend-0123456789-0123456789-0123" in keys
    assert "backend-second" not in keys


def test_only_checked_paths_are_sent_to_replicas():
    passes = re.findall(r"proxy_pass (.*);", render("nginx.conf.j2"))
    assert passes == [
        "http://$llm_upstream/v1/$llm_api",
        "http://$llm_upstream/v1/$llm_api",
        "http://$llm_upstream/v1/models",
    ]


def test_pools_become_upstreams_in_the_native_form():
    text = render("nginx.conf.j2", llm_balancer_nginx_upstream="native")
    group = (
        r"upstream (\S+) {\n\s+zone \1 4m;\n\s+least_conn;\n.*\n\s+include /etc/nginx/llm-view/current/\1[.]conf[*];"
    )
    assert re.findall(group, text) == ["llm_default", "llm_big.Pool"]
    assert '"~^default$" llm_default;' in text
    assert "lua" not in text.replace("# known in the lua form only", "")


def test_all_pools_share_one_upstream_in_the_lua_form():
    text = render("nginx.conf.j2")
    assert re.findall(r"upstream (\S+) {", text) == ["llm_replicas"]
    assert '"~^default$" llm_replicas;' in text
    assert '"~^big[.]Pool$" llm_replicas;' in text
    assert text.count('require("lb").admit()') == text.count("proxy_pass ") == 3


@pytest.mark.parametrize("form", SPEC["llm_balancer_nginx_upstream"]["choices"])
def test_a_full_queue_is_never_tried_elsewhere(form):
    text = render("nginx.conf.j2", llm_balancer_nginx_upstream=form)
    assert re.findall(r"proxy_next_upstream (.*);", text) == [
        "error timeout invalid_header http_500 http_502 non_idempotent"
    ]


@pytest.mark.parametrize(
    ("changes", "words", "present"),
    [
        ({}, "limit_req ", False),
        ({}, "limit_conn ", False),
        ({}, "$http_x_llm_pool", False),
        ({}, "listen 80 ", False),
        ({}, "listen [::]", False),
        ({"llm_balancer_rate_limit_per_client": 5}, "limit_req zone=llm_client_rate burst=40 nodelay;", True),
        ({"llm_balancer_rate_limit_per_client": "5"}, "rate=5r/s;", True),
        ({"llm_balancer_connections_per_client": 9}, "limit_conn llm_client_connections 9;", True),
        ({"llm_balancer_pool_header": True}, "map $http_x_llm_pool $llm_asked_pool", True),
        ({"llm_balancer_http_port": 80}, "listen 80 backlog", True),
        ({"llm_balancer_ipv6": "false"}, "listen [::]", False),
        ({"llm_balancer_ipv6": True}, "listen [::]:443 ssl", True),
        ({"llm_balancer_tries": "1"}, "proxy_next_upstream_tries 1;", True),
    ],
)
def test_optional_parts(changes, words, present):
    assert (words in render("nginx.conf.j2", **changes)) is present


def test_config_id_has_its_place_once():
    assert render("nginx.conf.j2").count("@CONFIG_ID@") == 1


@pytest.mark.parametrize(
    "template",
    [
        "llm_balancer_apply.path.j2",
        "llm_balancer_apply.service.j2",
        "nginx.conf.j2",
        "nginx_keys.conf.j2",
        "nginx_unit.conf.j2",
        "tmpfiles.conf.j2",
    ],
)
def test_rendering_is_stable_and_marked(template):
    text = render(template)
    assert text == render(template)
    assert "Ansible managed" in text.splitlines()[1]
    assert all(len(line) <= 120 or "ssl_ciphers" in line or "ExecStart=" in line for line in text.splitlines())


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs the nginx program")
@pytest.mark.skipif(os.geteuid() != 0, reason="nginx -t needs root to become www-data")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "llm_balancer_connections_per_client": 9,
            "llm_balancer_http_port": 18080,
            "llm_balancer_pool_header": True,
            "llm_balancer_rate_limit_per_client": 5,
        },
    ],
)
@pytest.mark.parametrize("form", SPEC["llm_balancer_nginx_upstream"]["choices"])
def test_nginx_accepts_it(tmp_path, form, changes):
    if form == "lua" and not LUA_MODULE.exists():
        pytest.skip("needs libnginx-mod-http-lua and lua-cjson")
    pair = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt"), "-subj", "/CN=llm.example.com"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *pair], check=True, capture_output=True)
    (tmp_path / "tls.pem").write_text((tmp_path / "crt").read_text() + (tmp_path / "key").read_text())
    (tmp_path / "keys.conf").write_text(render("nginx_keys.conf.j2"))
    (tmp_path / "nginx-llm").mkdir()
    places = {"__llm_balancer_secrets_dir": str(tmp_path), "__llm_balancer_lua_dir": str(ROLE / "files")}
    text = render("nginx.conf.j2", **places, llm_balancer_port=18443, llm_balancer_nginx_upstream=form, **changes)
    for place in ("/var/log/nginx", "/run"):
        text = text.replace(place, str(tmp_path))
    (tmp_path / "nginx.conf").write_text(text)
    done = subprocess.run(
        ["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
