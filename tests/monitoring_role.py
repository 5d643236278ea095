"""The role llm_monitoring without a host: ansible renders its templates for examples, the real checkers read them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tests import certificates, debian_programs, plain_ansible

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROLE = ROOT / "roles" / "llm_monitoring"

PASSWORD = "correct-horse-battery"
RECEIVERS = [
    {
        "name": "oncall",
        "pagerduty_key": "pagerduty-0123456789",
        "webhook_url": "https://hooks.example.com/page",
        "webhook_token": "webhook-token-0123456789",
    },
    {
        "name": "team",
        "email": ["llm-team@example.com"],
        "slack_url": "https://hooks.slack.example.com/services/T0/B0/slack-secret",
        "slack_channel": "#llm",
    },
]
ALERTING = {
    "llm_monitoring_receivers": RECEIVERS,
    "llm_monitoring_page_receiver": "oncall",
    "llm_monitoring_ticket_receiver": "team",
    "llm_monitoring_watchdog_url": "https://deadman.example.com/ping",
    "llm_monitoring_smtp_smarthost": "mail.example.com:587",
    "llm_monitoring_smtp_from": "llm@example.com",
    "llm_monitoring_smtp_username": "llm",
    "llm_monitoring_smtp_password": "smtp-0123456789",
}
USERS = [{"name": "llmops", "password": PASSWORD}, {"name": "reader", "hash": "$2y$10$" + "a" * 53}]
PAIR = [{"name": "secured", "address": "192.0.2.41"}, {"name": "other", "address": "192.0.2.42"}]
TLS = {
    "llm_monitoring_tls_certificate": "{{ lookup('file', out ~ '/tls/monitor.crt') }}",
    "llm_monitoring_tls_key": "{{ lookup('file', out ~ '/tls/monitor.key') }}",
    "llm_monitoring_tls_ca": "{{ lookup('file', out ~ '/tls/monitor.crt') }}",
    "llm_monitoring_server_name": "monitoring.example.com",
}
# What each example sets; examples are hosts of one inventory.
EXAMPLES: dict[str, dict[str, Any]] = {
    "plain": {
        "llm_monitoring_members": [{"name": "plain", "address": "192.0.2.40"}],
        "llm_monitoring_web_users": USERS[:1],
        "llm_monitoring_page_receiver": "none",
        "llm_monitoring_ticket_receiver": "none",
        "llm_monitoring_service_urls": [],
        "llm_monitoring_grafana_install_method": "none",
    },
    "secured": {
        **ALERTING,
        "llm_monitoring_members": PAIR,
        **TLS,
        "llm_monitoring_web_users": USERS,
        "llm_monitoring_service_ca": "{{ lookup('file', out ~ '/tls/monitor.crt') }}",
        "llm_monitoring_retention_size": "50GB",
        "llm_monitoring_external_labels": {"fleet": "eu1"},
        "llm_monitoring_secret_files": {"remote-write": "remote-0123456789"},
        "llm_monitoring_remote_write": [
            {
                "url": "https://metrics.example.com/api/v1/write",
                "basic_auth": {"username": "fleet", "password_file": "/etc/prometheus/secrets/remote-write"},
            }
        ],
        "llm_monitoring_scrape_configs": [
            {"job_name": "ours", "static_configs": [{"targets": ["192.0.2.99:8080"]}]},
        ],
        "llm_monitoring_routes": [{"receiver": "team", "matchers": ['pool="batch"']}],
        "llm_monitoring_grafana_admin_password": "grafana-$-0123456789",
    },
    "native": {
        "llm_monitoring_members": [{"name": "native", "address": "192.0.2.44"}],
        "llm_monitoring_web_users": USERS[:1],
        "llm_monitoring_page_receiver": "none",
        "llm_monitoring_ticket_receiver": "none",
        "llm_monitoring_grafana_install_method": "none",
        "llm_monitoring_prometheus_install_method": "archive",
        "llm_monitoring_native_histograms": True,
    },
    "existing": {
        "llm_monitoring_members": [{"name": "existing", "address": "192.0.2.43"}],
        **{
            f"llm_monitoring_{part}_install_method": "none"
            for part in ("prometheus", "alertmanager", "blackbox", "grafana")
        },
        "llm_monitoring_targets_directory": "/etc/prometheus/llm-targets",
        "llm_monitoring_blackbox_address": "192.0.2.50:9115",
        "llm_monitoring_dashboards_directory": "/srv/dashboards",
        "llm_monitoring_web_users": USERS,
        "llmops_backend_keys": [],
    },
}
# Two hosts that page through one webhook, and hardly wait for other alerts: examples for a test of their own.
PAGED_BY = "https://hooks.example.com/page"
BOTH: dict[str, Any] = {
    **TLS,
    "llm_monitoring_members": [{"name": "left", "address": "192.0.2.51"}, {"name": "right", "address": "192.0.2.52"}],
    "llm_monitoring_web_users": USERS,
    "llm_monitoring_receivers": [{"name": "oncall", "webhook_url": PAGED_BY}],
    "llm_monitoring_page_receiver": "oncall",
    "llm_monitoring_page_wait": 1,
    "llm_monitoring_ticket_receiver": "none",
    "llm_monitoring_grafana_install_method": "none",
}
FLEET: dict[str, Any] = {
    "llm_servers": {
        "hosts": {
            "gpu1": {"llmops_address": "192.0.2.21", "llmops_price_usd_per_hour": 4},
            "gpu2": {"llmops_address": "192.0.2.22", "llmops_price_usd_per_hour": 4, "llmops_pool": "batch"},
        },
        "vars": {
            "llmops_model_name": "llama.70b",
            "llmops_model_source": "file:///srv/model",
            "llmops_model_revision": "1",
        },
    },
    "llm_balancers": {
        "hosts": {"lb1": {"llmops_address": "192.0.2.11"}, "lb2": {"llmops_address": "192.0.2.12"}},
        "vars": {
            "llm_balancer_virtual_address": "192.0.2.10/24",
            "llm_balancer_server_name": "llm.example.com",
        },
    },
    "llm_monitors": {},
    "all": {
        "vars": {
            "llmops_backend_keys": ["backend-0123456789-0123456789-0123"],
            "llmops_client_keys": [{"name": "probe", "key": "client-0123456789"}],
        }
    },
}
# What is rendered: file -> template, and the variables that tasks of the role give it, as an expression.
_PARTS = ("prometheus", "alertmanager", "blackbox", "grafana")
_TEMPLATES = {
    "prometheus.yml": ("prometheus.yml.j2", "{}"),
    "alertmanager.yml": ("alertmanager.yml.j2", "{}"),
    "llm.tmpl": ("llm.tmpl.j2", "{}"),
    "blackbox.yml": ("blackbox.yml.j2", "{}"),
    "grafana.ini": ("grafana.ini.j2", "{}"),
    "datasources.yml": ("grafana_datasources.yml.j2", "{}"),
    "dashboards.yml": ("grafana_dashboards.yml.j2", "{}"),
    "llm-web.yml": ("web.yml.j2", "{'__llm_monitoring_web': {'tls': __llm_monitoring_tls | bool}}"),
    "llm-web-local.yml": ("web.yml.j2", "{'__llm_monitoring_web': {'tls': false}}"),
    **{
        f"{part}.service": ("unit.service.j2", f"{{'__llm_monitoring_unit': __llm_monitoring_unit_files.{part}}}")
        for part in _PARTS
    },
}
_EVERYTHING = {
    "files": {
        file: f"{{{{ lookup('template', '{ROLE}/templates/{template}', template_vars={variables}) }}}}"
        for file, (template, variables) in _TEMPLATES.items()
    },
    "secrets": "{{ __llm_monitoring_secrets }}",
    "targets": "{{ llm_monitoring_targets }}",
    "textfile": "{{ llm_monitoring_textfile }}",
}
_PLAY = [
    {
        "hosts": "llm_monitors",
        "connection": "local",
        "gather_facts": False,
        "vars": {"everything": _EVERYTHING},
        "tasks": [
            {"set_fact": {"architecture": "x86_64", "distribution": "Debian", "cacheable": True}},
            {
                "include_role": {
                    "name": "llmops.vllm.llm_monitoring",
                    "tasks_from": "preflight_settings",
                    "public": True,
                }
            },
            {"copy": {"content": "{{ everything | to_json }}", "dest": "{{ out }}/{{ inventory_hostname }}.json"}},
        ],
    }
]


class Rendered:
    """The files of an example on the disk, and what the role would write besides."""

    def __init__(self, path: pathlib.Path) -> None:
        told = json.loads(path.read_text())
        self.directory = path.with_suffix("")
        self.directory.mkdir()
        self.secrets = {secret["name"]: secret["content"] for secret in told["secrets"]}
        self.targets: dict[str, list[dict[str, Any]]] = told["targets"]
        self.textfile: str = told["textfile"]
        for name, text in told["files"].items():
            (self.directory / name).write_text(text)

    def text(self, name: str) -> str:
        """Return the text of a file."""
        return (self.directory / name).read_text()

    def yaml(self, name: str) -> Any:
        """Return the content of a YAML file."""
        return yaml.safe_load(self.text(name))


def render(directory: pathlib.Path, examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Rendered]:
    """Render examples; the files of each lie below the directory, as ``EXAMPLE/FILE``."""
    certificates.write(directory / "tls", "monitor", name="monitoring.example.com", days=90)
    monitors = {**FLEET["llm_monitors"], "hosts": dict(examples)}
    (directory / "inventory.yml").write_text(yaml.safe_dump({**FLEET, "llm_monitors": monitors}))
    (directory / "play.yml").write_text(yaml.safe_dump(_PLAY))
    extra = json.dumps({"out": str(directory), "ansible_python_interpreter": sys.executable})
    done = subprocess.run(
        ["ansible-playbook", "-i", str(directory / "inventory.yml"), "-e", extra, str(directory / "play.yml")],
        env=plain_ansible.environment(directory),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {example: Rendered(directory / f"{example}.json") for example in examples}


_ONE_BY_ONE = [
    {
        "hosts": "llm_monitors",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {
                "block": [
                    {"include_role": {"name": "llmops.vllm.llm_monitoring", "tasks_from": "{{ item }}"}, "loop": []},
                    {
                        "debug": {"msg": "changed"},
                        "changed_when": True,
                        "notify": "{{ notified }}",
                        "when": "notified is defined",
                    },
                    {"meta": "flush_handlers"},
                ],
                "rescue": [
                    {
                        "copy": {
                            "content": "{{ ansible_failed_result.msg }}",
                            "dest": "{{ place }}/refused",
                            "mode": "0644",
                        },
                        "check_mode": False,
                    }
                ],
            }
        ],
    }
]
# A host with units that take whatever they are told; systemctl writes that down beside the programs.
PROGRAMS = {
    "systemctl": """case "$*" in
show*) printf 'LoadState=loaded\\nActiveState=active\\n' ;;
*) echo "$*" >> "$(dirname "$0")/../told" ;;
esac""",
    "ss": "",
    "timedatectl": "echo yes",
    "dpkg-query": "exit 1",
}


def outcomes(
    directory: pathlib.Path,
    hosts: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[str],
    programs: Mapping[str, str] | None = None,
    *options: str,
) -> dict[str, str]:
    """Run task files of the role on this machine, once for each host; return by host why it was refused, or nothing.

    Each host has a directory of its name as ``place``, with ``etc`` for /etc/prometheus and ``rules`` below it, and
    handles ``notified`` at the end. ``programs`` stand for those of a host, as texts for a shell. What units are told
    is a line each in ``told``.
    """
    for host in hosts:
        (directory / host / "etc" / "rules").mkdir(parents=True, exist_ok=True)
        (directory / host / "refused").unlink(missing_ok=True)
    (directory / "bin").mkdir(exist_ok=True)
    for name, text in {**PROGRAMS, **(programs or {})}.items():
        path = directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    play = json.loads(json.dumps(_ONE_BY_ONE))
    play[0]["tasks"][0]["block"][0]["loop"] = list(tasks)
    (directory / "play.yml").write_text(yaml.safe_dump(play))
    monitors = {"hosts": {host: {"place": str(directory / host), **given} for host, given in hosts.items()}}
    (directory / "inventory.yml").write_text(yaml.safe_dump({**FLEET, "llm_monitors": monitors}))
    extra = {"ansible_python_interpreter": sys.executable, "__llm_monitoring_etc": "{{ place }}/etc"}
    command = ["ansible-playbook", "-i", str(directory / "inventory.yml"), "-e", json.dumps(extra), *options]
    done = subprocess.run(
        [*command, str(directory / "play.yml")],
        env=plain_ansible.environment(directory, PATH=f"{directory / 'bin'}:{os.environ['PATH']}"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refused = {host: directory / host / "refused" for host in hosts}
    return {host: path.read_text() if path.exists() else "" for host, path in refused.items()}


def lay_out(example: Rendered, place: pathlib.Path) -> pathlib.Path:
    """Lay the files of an example out as on a host, below a directory that stands for /etc/prometheus."""
    for kind in ("secrets", "rules", "targets"):
        (place / kind).mkdir()
    for name, content in example.secrets.items():
        (place / "secrets" / name).write_text(content)
    for kind, targets in example.targets.items():
        (place / "targets" / f"{kind}.json").write_text(json.dumps(targets))
    for path in example.directory.iterdir():
        (place / path.name).write_text(path.read_text().replace("/etc/prometheus", str(place)))
    for path in (ROLE / "files" / "rules").glob("*.yml"):
        shutil.copy(path, place / "rules")
    tls = example.directory.parent / "tls"
    pems = {"llm-tls.crt": "crt", "llm-tls.key": "key", "llm-ca.pem": "crt", "llm-service-ca.pem": "crt"}
    for name, kind in pems.items():
        shutil.copy(tls / f"monitor.{kind}", place / name)
    return place


def program(name: str) -> str:
    """Return the path of a program of Prometheus' family; skips the test where it cannot be had."""
    package = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}.get(name, name)
    return str(debian_programs.program(package, name))
