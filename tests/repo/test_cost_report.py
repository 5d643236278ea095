"""``llmops.vllm.cost_report`` as an operator runs it, by real ansible against a small Prometheus."""

from __future__ import annotations

import json
import pathlib

from tests import plain_ansible
from tests.fakes.prometheus import Prometheus
from tests.fakes.web import Web

from . import ansible_once
from .tree import ROOT

PLAY = ["ansible-playbook", "llmops.vllm.cost_report"]


def test_it_shows_the_table_and_writes_json_or_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "hosts.yml").write_text("llm_servers: {hosts: {gpu1: {ansible_host: 192.0.2.21}}}\n")
    env = plain_ansible.environment(tmp_path, ANSIBLE_INVENTORY=str(tmp_path / "hosts.yml"))
    with Web(Prometheus(), login=("ops", "correct horse")) as web:
        given = {"llmops_prometheus_url": web.url, "llmops_report_file": str(tmp_path / "cost.json")}
        given |= {"llmops_monitoring_user": "ops", "llmops_monitoring_password": "correct horse"}
        given |= {"llmops_report_from": "2026-01-01", "llmops_report_to": "2026-01-03"}
        told, none = ansible_once.run([[*PLAY, "-e", json.dumps(given), "-v"], PLAY], cwd=ROOT, env=env)
    assert told.rc == 0, told.out
    assert "chat       96.0  576.00  6,000,000   2,000,000         72.00     288.00   80.00" in told.out
    assert "changed=1" in told.out and "WARNING" not in told.out and "correct horse" not in told.out
    written = json.loads((tmp_path / "cost.json").read_text())
    assert written["total"]["usd"] == 576
    assert none.rc == 2 and "llmops_prometheus_url is not set: give the address" in " ".join(none.out.split())
