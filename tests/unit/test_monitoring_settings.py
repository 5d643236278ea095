"""What monitoring refuses before a host is touched, and what it makes of settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils._check import monitors as check_monitors
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import foreign
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import host as monitor_host
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import services as monitors

from tests.monitoring_role import ALERTING, ROLE

DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
SETTINGS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__llm_monitoring_settings"]
GOOD: dict[str, Any] = {name: DEFAULTS.get(f"llm_monitoring_{name}") for name in SETTINGS} | {
    "architecture": "amd64",
    "backend_keys": ["backend"],
    "certificate_pem": "",
    "grafana_admin_password": "twelve-or-more",
    "key_pem": "",
    "listen_address": "127.0.0.1",
    "members": [{"name": "mon1", "address": "192.0.2.41"}],
    "plain_http": False,
    "service_key": "client",
    "web_users": [{"name": "llmops", "password": "correct-horse"}],
    **{name.removeprefix("llm_monitoring_"): value for name, value in ALERTING.items()},
}
TWO = [*GOOD["members"], {"name": "mon2", "address": "192.0.2.42"}]
(USER,) = GOOD["web_users"]


def problems(**changes: Any) -> list[str]:
    return check_monitors.messages({**copy.deepcopy(GOOD), **changes})


def test_the_defaults_with_receivers_have_no_problem():
    assert problems() == []


def test_probes_without_a_key_need_no_users():
    assert problems(web_users=[], backend_keys=[], service_key="") == []


def test_an_existing_stack_needs_neither_receivers_nor_passwords():
    none = {f"{part}_install_method": "none" for part in check_monitors.PARTS}
    assert problems(**none, receivers=[], page_receiver="", ticket_receiver="", grafana_admin_password="") == []


@pytest.mark.parametrize("method", ["archive", "none"])
def test_native_histograms_of_a_new_prometheus_have_no_problem(method):
    assert problems(native_histograms=True, prometheus_install_method=method) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"page_receiver": ""}, ["page_receiver is empty", "oncall, team", "none"]),
        ({"page_receiver": "oncal"}, ["page_receiver names 'oncal'", "did you mean 'oncall'?"]),
        ({"ticket_receiver": "x", "receivers": []}, ["ticket_receiver names 'x'", "has nobody"]),
        ({"receivers": [{"name": "oncall"}, *ALERTING["llm_monitoring_receivers"]]}, ["[oncall] reaches nobody"]),
        ({"receivers": [*ALERTING["llm_monitoring_receivers"] * 2]}, ["[oncall] is there twice"]),
        ({"routes": [{"receiver": "nobody"}]}, ["routes[0] names 'nobody'"]),
        ({"smtp_username": "llm", "smtp_password": ""}, ["smtp_password is empty", "'llm'"]),
        ({"smtp_smarthost": ""}, ["smtp_smarthost is empty", "'team'", "mail.example.com:587"]),
        ({"watchdog_url": "deadman.example.com"}, ["watchdog_url is no address", "https://"]),
        ({"watchdog_interval": 600}, ["watchdog_interval is 600 s", "30 to 300"]),
        ({"listen_address": "mon1"}, ["listen_address is 'mon1'", "an IP address"]),
        ({"listen_address": "192.0.2.41", "web_users": [USER]}, ["clear text", "llm_monitoring_plain_http: true"]),
        ({"listen_address": "192.0.2.41", "plain_http": True, "web_users": []}, ["web_users is empty", "192.0.2.41"]),
        ({"web_users": []}, ["web_users is empty", "send the keys of its probes", "llmops_monitoring_password"]),
        ({"web_users": [], "backend_keys": []}, ["web_users is empty", "send the keys of its probes"]),
        ({"members": TWO}, ["listen_address is 127.0.0.1", "2 monitoring hosts"]),
        ({"web_users": [{"name": "a", "hash": "$2b$10$" + "a" * 53}]}, ["web_users[a] has no password", "first user"]),
        ({"web_users": [{"name": "a", "password": "short"}]}, ["5 bytes", "12 to 72"]),
        ({"web_users": [USER, {"name": "b", "hash": "$apr1$x"}]}, ["web_users[b]", "not bcrypt's", "htpasswd -nB"]),
        ({"web_users": [USER, {"name": "b"}]}, ["web_users[b] has neither"]),
        ({"tls_certificate": "x.crt"}, ["tls_certificate names the file x.crt", "correct the path"]),
        ({"prometheus_port": 9093}, ["already taken by llm_monitoring_prometheus_port"]),
        ({"grafana_port": 70000}, ["grafana_port is 70000", "65535"]),
        (
            {"architecture": "riscv64"},
            ["grafana_sha256 has no digest for riscv64", "llm_monitoring_grafana_install_method"],
        ),
        ({"grafana_sha256": {"amd64": "abc"}}, ["grafana_sha256 is no sha256", "64"]),
        ({"grafana_admin_password": ""}, ["grafana_admin_password is empty", "12 or more"]),
        ({"scrape_timeout": 20}, ["scrape_timeout is 20 s", "llm_monitoring_scrape_interval, 10 s"]),
        ({"retention_days": 7}, ["retention_days is 7", "look back 30 days", "give 32 or more"]),
        ({"scrape_interval": 60}, ["scrape_interval is 60", "give 10 or less"]),
        ({"external_labels": {"monitor": "x"}}, ["external_labels.monitor", "another name"]),
        ({"external_labels": {"a-b": "x"}}, ["external_labels.a-b is no name of a label"]),
        ({"native_histograms": True}, ["native_histograms is true", "3.0 or newer", "install_method: archive"]),
        (
            {"native_histograms": True, "prometheus_install_method": "archive", "prometheus_version": "2.53.3"},
            ["native_histograms is true", "llm_monitoring_prometheus_version is 2.53.3"],
        ),
        ({"remote_write": [{"url": "https://x", "basic_auth": {"password": "sesame"}}]}, ["password_file"]),
        ({"remote_write": [{"name": "far"}]}, ["remote_write[far] has no url"]),
        (
            {"remote_write": [{"url": "https://me:sesame@far.example.com/w"}]},
            ["remote_write[https://far.example.com/w]", "holds a secret in url", "basic_auth"],
        ),
        (
            {"scrape_configs": [{"job_name": "db", "http_headers": {"X-Key": {"secrets": ["sesame"]}}}]},
            ["scrape_configs[db]", "holds a secret in secrets", "files"],
        ),
        ({"secret_files": {"llm-x": "y"}}, ["secret_files.llm-x is no name"]),
        ({"secret_files": {"x": ""}}, ["secret_files.x is empty"]),
        ({"scrape_configs": [{"job_name": "vllm"}]}, ["scrape_configs[vllm]", "a job of the role"]),
        (
            {"scrape_configs": [{"job_name": "db", "basic_auth": {"username": "u", "password": "sesame"}}]},
            ["scrape_configs[db]", "holds a secret in password", "password_file"],
        ),
    ],
)
def test_messages_name_variable_value_and_mend(changes, words):
    told = problems(**changes)
    assert all(text.startswith("llm_monitoring_") for text in told)
    assert [text for text in told if all(word in text for word in words)] != [], told


def test_no_message_holds_a_secret():
    secrets = {
        "remote_write": [{"url": "https://me:sesame@u", "basic_auth": {"password": "sesame"}}],
        "scrape_configs": [{"job_name": "db", "authorization": {"credentials": "sesame"}}],
        "secret_files": {"llm-a": "sesame"},
    }
    users = [{"name": "a", "password": "sesame"}, {"name": "b", "hash": "sesame"}]
    receivers = [{"name": "oncall", "slack_url": "sesame", "webhook_url": "sesame"}]
    told = problems(**secrets, web_users=users, receivers=receivers, ticket_receiver="oncall", watchdog_url="sesame")
    assert len(told) >= 7
    assert "sesame" not in " ".join(told)


def test_jobs_are_those_of_the_template():
    template = (ROLE / "templates" / "prometheus.yml.j2").read_text()
    loops = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__llm_monitoring_jobs"]
    loop = {job["name"] for job in loops}
    assert [job for job in check_monitors.JOBS if job not in loop and job not in template] == []


@pytest.mark.parametrize(
    ("lb1", "lb2", "urls"),
    [
        ({}, {}, ["https://192.0.2.11:443/v1/models", "https://192.0.2.12:443/v1/models"]),
        ({"llm_balancer_virtual_address": "192.0.2.10/24"}, None, ["https://192.0.2.10:443/v1/models"]),
        ({"llm_balancer_virtual_address": "2001:db8::10/64"}, None, ["https://[2001:db8::10]:443/v1/models"]),
        ({"llm_balancer_port": "8443"}, None, ["https://192.0.2.11:8443/v1/models"]),
    ],
)
def test_the_service_is_probed_where_clients_reach_it(lb1, lb2, urls):
    hostvars = {"lb1": {"llmops_address": "192.0.2.11", **lb1}}
    if lb2 is not None:
        hostvars["lb2"] = {"llmops_address": "192.0.2.12", **lb2}
    assert monitors.service(hostvars, hostvars)["urls"] == urls


def test_names_come_from_the_first_balancer_that_has_one():
    hostvars = {"lb1": {}, "lb2": {"llm_balancer_server_name": "llm.example.com", "llm_balancer_default_pool": "chat"}}
    told = monitors.service(hostvars, hostvars)
    assert (told["name"], told["pool"]) == ("llm.example.com", "chat")
    assert monitors.service({}, []) == {"urls": [], "name": "", "pool": ""}


def test_hashes_differ_by_host_and_user_and_are_stable():
    one = monitors.bcrypt("correct-horse", "mon1/a")
    assert one == monitors.bcrypt("correct-horse", "mon1/a")
    others = [("correct-horse", "mon2/a"), ("correct-horse", "mon1/b"), ("another-horse", "mon1/a")]
    assert len({one, *(monitors.bcrypt(*other) for other in others)}) == 4


def test_a_controller_without_bcrypt_says_what_to_do(monkeypatch):
    monkeypatch.setattr(monitors.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(monitors.HashError, match="htpasswd -nB"):
        monitors.users([USER], "mon1")
    assert monitors.users([{"name": "a", "hash": "h"}], "mon1") == {"a": "h"}


PARTS = [
    {"name": "prometheus", "unit": "prometheus.service", "ports": {"prometheus_port": 9090}},
    {"name": "grafana", "unit": "grafana-server.service", "ports": {"grafana_port": 3000}},
]
OURS = "/etc/systemd/system/prometheus.service"
RUNNING = f"Id=prometheus.service\nActiveState=active\nMainPID=77\nFragmentPath={OURS}\n"
STOPPED = "Id=grafana-server.service\nActiveState=inactive\nMainPID=0\nFragmentPath=\n"


def socket(port: int, program: str, process: int) -> str:
    return f'LISTEN 0 4096 127.0.0.1:{port} 0.0.0.0:* users:(("{program}",pid={process},fd=7))\n'


@pytest.mark.parametrize(
    ("sockets", "units", "ours", "replace", "words"),
    [
        ("", f"{RUNNING}\n{STOPPED}", [OURS], False, []),
        (socket(9090, "prometheus", 77), f"{RUNNING}\n{STOPPED}", [OURS], False, []),
        (
            socket(3000, "node", 5),
            f"{RUNNING}\n{STOPPED}",
            [OURS],
            False,
            ["llm_monitoring_grafana_port is 3000", "node"],
        ),
        (socket(9090, "python3", 5), STOPPED, [], False, ["llm_monitoring_prometheus_port is 9090", "python3"]),
        ("LISTEN 0 1 [::]:9090 [::]:*\n", STOPPED, [], False, ["an unknown program"]),
        ("LISTEN 0 1 [::]:9090 [::]:*\n", RUNNING, [OURS], False, []),
        (
            "",
            f"{RUNNING}\n{STOPPED}",
            [],
            False,
            ["llm_monitoring_prometheus_install_method", "is not this role's", OURS],
        ),
        (socket(9090, "prometheus", 77), f"{RUNNING}\n{STOPPED}", [], True, []),
    ],
)
def test_what_runs_on_the_host_already(sockets, units, ours, replace, words):
    told = monitor_host.messages("mon1", PARTS, sockets, units, ours, replace)
    assert len(told) == bool(words)
    assert [word for word in words if word not in "".join(told)] == []


CONFIGURATION = {
    "prometheus": ["/etc/prometheus/prometheus.yml", "/etc/prometheus/rules"],
    "alertmanager": ["/etc/prometheus/alertmanager.yml"],
}
A, B = "a" * 32, "b" * 32
CONFFILES = f" /etc/default/prometheus {B}\n /etc/prometheus/prometheus.yml {A}\n\n /etc/init.d/old {A} obsolete\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("", []),
        (f"{A}  /etc/prometheus/prometheus.yml\n", []),
        (
            f"{B}  /etc/prometheus/prometheus.yml\n",
            ["prometheus_install_method would", "/etc/prometheus/prometheus.yml on"],
        ),
        (f"{A}  /etc/prometheus/alertmanager.yml\n", ["alertmanager_install_method would", "replace_foreign: true"]),
        (f"{A}  /etc/prometheus/rules/mine.yml\n", []),
        (f"\\{A}  /etc/prometheus/rules/a\\\\b\n", ["/etc/prometheus/rules/a"]),
        ("".join(f"{A}  /etc/prometheus/rules/{n}.yml\n" for n in range(5)), ["2.yml and 2 more on mon1"]),
    ],
)
def test_configuration_that_somebody_else_made(files, words):
    told = foreign.messages("mon1", CONFIGURATION, files, CONFFILES, ["mine.yml"])
    assert len(told) == bool(words)
    assert [word for word in words if word not in "".join(told)] == []


def test_where_no_package_tells_its_files_all_are_somebody_elses():
    told = foreign.messages("mon1", CONFIGURATION, f"{A}  /etc/prometheus/prometheus.yml\n")
    assert [text.split()[0] for text in told] == ["mon1:"]
