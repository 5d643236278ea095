"""Role llm_monitoring without a host: ansible renders its files, the programs that read them check them."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from tests.fakes.web import Web
from tests.monitoring_role import ALERTING, EXAMPLES, PASSWORD, RECEIVERS, ROLE, Rendered, lay_out, outcomes, program
from tests.ports import free_port
from tools import promtool
from tools.debian_packages import NoPackage

INSTALLED = ("plain", "secured")


@pytest.fixture
def examples(monitoring_examples: dict[str, Rendered]) -> dict[str, Rendered]:
    return monitoring_examples


@pytest.fixture(params=INSTALLED)
def host(request: pytest.FixtureRequest, examples: dict[str, Rendered], tmp_path: pathlib.Path) -> pathlib.Path:
    return lay_out(examples[request.param], tmp_path)


def check(*command: str) -> str:
    """Run a checker and return what it printed."""
    done = subprocess.run([program(command[0]), *command[1:]], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_prometheus_yml(host):
    check("promtool", "check", "config", str(host / "prometheus.yml"))


@pytest.mark.parametrize("example", [*INSTALLED, "native"])
def test_promtool_of_prometheus_3_accepts_prometheus_yml(examples, tmp_path, example):
    try:
        tool = promtool.ensure("3")
    except NoPackage as reason:
        pytest.skip(str(reason))
    config = lay_out(examples[example], tmp_path) / "prometheus.yml"
    done = subprocess.run([tool, "check", "config", str(config)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_native_histograms_are_asked_for_by_flag_and_job(examples):
    assert "--enable-feature=native-histograms" in examples["native"].text("prometheus.service")
    kept = {
        job["job_name"]
        for job in examples["native"].yaml("prometheus.yml")["scrape_configs"]
        if job.get("convert_classic_histograms_to_nhcb")
    }
    assert kept == {"vllm"}
    assert "nhcb" not in examples["secured"].text("prometheus.yml")


@pytest.mark.parametrize("name", ["llm-web.yml", "llm-web-local.yml"])
def test_promtool_accepts_who_may_open_the_pages(host, name):
    check("promtool", "check", "web-config", str(host / name))


def test_amtool_accepts_alertmanager_yml(host):
    check("amtool", "check-config", str(host / "alertmanager.yml"))


def test_the_blackbox_exporter_accepts_its_modules(host):
    check("prometheus-blackbox-exporter", "--config.check", f"--config.file={host / 'blackbox.yml'}")


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=LLMReplicaDown", "severity=page", "pool=chat"], "oncall"),
        (["alertname=LLMQueueGrowing", "severity=ticket", "pool=chat"], "team"),
        (["alertname=Watchdog", "severity=none"], "watchdog"),
        (["alertname=Quiet", "severity=none"], "none"),
        (["alertname=Foreign"], "team"),
        (["alertname=LLMReplicaDown", "severity=page", "pool=batch"], "team"),  # a route of the inventory
    ],
)
def test_alerts_reach_whom_they_should(examples, labels, receiver):
    config = f"--config.file={examples['secured'].directory / 'alertmanager.yml'}"
    assert check("amtool", "config", "routes", "test", config, *labels).strip() == receiver


def test_no_secret_stands_in_a_file_that_is_no_secret(examples):
    secrets = {value for value in examples["secured"].secrets.values() if value}
    assert PASSWORD in secrets
    assert ALERTING["llm_monitoring_smtp_password"] in secrets
    assert {RECEIVERS[1]["slack_url"], RECEIVERS[0]["pagerduty_key"], RECEIVERS[0]["webhook_token"]} <= secrets
    told = {
        path.name: secret
        for path in examples["secured"].directory.iterdir()
        for secret in secrets
        if secret in path.read_text()
    }
    assert told == {"datasources.yml": PASSWORD}  # 0640 of Grafana's group


def test_series_of_ours_keep_their_labels(examples):
    jobs = {job["job_name"]: job for job in examples["secured"].yaml("prometheus.yml")["scrape_configs"]}
    assert [name for name, job in jobs.items() if job.get("honor_labels")] == ["agent", "node"]


def test_prices_of_the_other_monitoring_host_count_once(examples):
    def dropped(example: str) -> list[str]:
        jobs = {job["job_name"]: job for job in examples[example].yaml("prometheus.yml")["scrape_configs"]}
        return [rule["regex"] for rule in jobs["node"].get("metric_relabel_configs", [])]

    assert dropped("plain") == []
    (pattern,) = dropped("secured")
    metrics = set(re.findall(r"^(\w+)", re.sub(r"(?m)^#.*\n", "", examples["secured"].textfile), re.MULTILINE))
    assert metrics
    assert [name for name in metrics if not re.fullmatch(pattern, f"192.0.2.42:9100;{name}")] == []
    assert not re.fullmatch(pattern, f"192.0.2.41:9100;{metrics.pop()}")
    assert not re.fullmatch(pattern, "192.0.2.42:9100;llmops_rollout_in_progress")


def test_probes_ask_for_the_model_of_their_replica(examples):
    modules = examples["secured"].yaml("blackbox.yml")["modules"]
    models = {target["labels"]["model"] for target in examples["secured"].targets["replicas"]}
    assert set(modules) == {f"{kind}:{model}" for kind in ("models", "completion") for model in models} | {"service"}
    jobs = {job["job_name"]: job for job in examples["secured"].yaml("prometheus.yml")["scrape_configs"]}
    for job, path in (("probe_models", "models"), ("probe_completion", "completions")):
        rules = {rule["target_label"]: rule for rule in jobs[job]["relabel_configs"]}
        assert rules["__param_target"]["replacement"] == f"http://$1/v1/{path}"
        assert rules["__param_module"]["source_labels"] == ["model"]


def test_without_a_key_none_is_sent(examples):
    assert "authorization" in examples["secured"].text("blackbox.yml")
    assert "llm-backend-key" not in examples["existing"].text("blackbox.yml")


def test_an_existing_prometheus_gets_jobs_alone(examples):
    config = examples["existing"].yaml("prometheus.yml")
    assert list(config) == ["scrape_configs"]
    own = {job["job_name"] for job in config["scrape_configs"]}
    assert own.isdisjoint({"prometheus", "alertmanager", "blackbox", "grafana"})
    assert {"vllm", "probe_completion", "agent", "node", "gpu"} <= own


def test_jobs_for_an_existing_prometheus_have_the_pace_that_alerts_count_on_and_no_login_of_ours(examples):
    jobs = {job["job_name"]: job for job in examples["existing"].yaml("prometheus.yml")["scrape_configs"]}
    assert {job["scrape_interval"] for job in jobs.values()} == {"10s"}
    assert [name for name, job in jobs.items() if "basic_auth" in job] == [], "its password is on no host"
    ours = {job["job_name"]: job for job in examples["secured"].yaml("prometheus.yml")["scrape_configs"]}
    assert ours["probe_completion"]["basic_auth"]["username"] == "llmops"


def test_two_alertmanagers_know_each_other(examples):
    pair, single = (examples[name].text("alertmanager.service") for name in ("secured", "plain"))
    assert "--cluster.peer=192.0.2.42:9094" in pair
    assert "--cluster.listen-address=192.0.2.41:9094" in pair
    assert "--cluster.peer" not in single
    assert re.search(r"--cluster.listen-address=$", single, re.MULTILINE)
    config = examples["secured"].yaml("prometheus.yml")
    (told,) = config["alerting"]["alertmanagers"]
    assert told["static_configs"] == [{"targets": ["192.0.2.41:9093", "192.0.2.42:9093"]}]
    assert config["alerting"]["alert_relabel_configs"] == [{"action": "labeldrop", "regex": "monitor"}]


def test_without_a_certificate_everything_stays_on_loopback(examples):
    for unit in ("prometheus", "alertmanager", "blackbox"):
        assert re.findall(r"--web.listen-address=(\S+):\d+", examples["plain"].text(f"{unit}.service")) == ["127.0.0.1"]
    assert "http_addr = 127.0.0.1" in examples["plain"].text("grafana.ini")


def test_the_blackbox_exporter_stays_on_loopback_in_any_case(examples):
    unit = examples["secured"].text("blackbox.service")
    assert "--web.listen-address=127.0.0.1:9115" in unit
    assert "llm-web-local.yml" in unit


def test_hashes_are_the_same_each_time_and_open_with_the_password(examples):
    users = examples["secured"].yaml("llm-web.yml")["basic_auth_users"]
    assert users["reader"] == EXAMPLES["secured"]["llm_monitoring_web_users"][1]["hash"]
    assert re.fullmatch(r"\$2b\$10\$.{53}", users["llmops"])
    assert users == examples["secured"].yaml("llm-web-local.yml")["basic_auth_users"]


def test_dashboards_have_a_fixed_folder_and_datasource(examples):
    (provider,) = examples["secured"].yaml("dashboards.yml")["providers"]
    assert (provider["folder"], provider["options"]) == ("LLM", {"path": "/etc/grafana/llm-dashboards"})
    uids = [source["uid"] for source in examples["secured"].yaml("datasources.yml")["datasources"]]
    assert uids == ["llmops-prometheus", "llmops-alertmanager"]
    assert examples["existing"].yaml("dashboards.yml")["providers"][0]["options"] == {"path": "/srv/dashboards"}


def test_inhibitions_name_alerts_that_exist():
    rules = list((ROLE / "files" / "rules").glob("*.yml"))
    if not rules:
        pytest.skip("no rules are generated yet")
    groups = [group for path in rules for group in yaml.safe_load(path.read_text())["groups"]]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    text = (ROLE / "vars" / "main.yml").read_text().split("__llm_monitoring_inhibitions:")[1].split("\n\n")[0]
    named = {name for names in re.findall(r'alertname[!=~]+"([^"]+)"', text) for name in names.split("|")}
    assert named
    assert named - alerts == set()


MANAGED = "#\n# Ansible managed\n#\n"
CONFIGURED: dict[str, dict[str, str]] = {
    "bare": {},
    "packaged": {"prometheus.yml": "packaged", "alertmanager.yml": "packaged"},
    "edited": {"prometheus.yml": "packaged and edited"},
    "with-rules": {"prometheus.yml": "packaged", "rules/handmade.yml": "groups: []"},
    "alerting": {"alertmanager.yml": "route: {receiver: boss}"},
    "replaced": {"prometheus.yml": "handmade", "rules/handmade.yml": "groups: []"},
    "interrupted": {"prometheus.yml": f"{MANAGED}x", "rules/llmops_slo.yml": "x", "rules/mine.yml": "x"},
    "ours": {"prometheus.yml": "x", "rules/handmade.yml": "groups: []"},
}


@pytest.mark.parametrize(("names", "options"), [([*CONFIGURED], []), (["bare", "edited"], ["--check"])])
def test_configuration_that_somebody_else_made_is_refused(tmp_path, names, options):
    hosts = {host: {"llm_monitoring_rules_directory": "{{ place }}/etc/rules", "ours": []} for host in CONFIGURED}
    hosts["replaced"]["llm_monitoring_replace_foreign"] = True
    hosts["interrupted"]["llm_monitoring_rule_files"] = ["files/mine.yml"]
    hosts["ours"]["ours"] = ["/etc/systemd/system/prometheus.service"]
    for host in names:
        for name, text in CONFIGURED[host].items():
            path = tmp_path / host / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    digest = hashlib.md5(b"packaged", usedforsecurity=False).hexdigest()
    packages = [f" {path} {digest}" for path in tmp_path.glob("*/etc/*.yml")]
    dpkg = {"dpkg-query": "cat <<'END'\n" + "\n".join(packages) + "\nEND\nexit 1"}
    found = '{"__llm_monitoring_ours": {"rc": 0, "stdout_lines": "{{ ours }}"}}'
    told = outcomes(tmp_path, {host: hosts[host] for host in names}, ["preflight_host"], dpkg, "-e", found, *options)
    refused = [host for host in names if host in ("edited", "with-rules", "alerting")]
    assert [host for host, text in told.items() if text] == refused
    assert "llm_monitoring_prometheus_install_method would replace" in told["edited"]
    if options:
        return
    assert (
        f"{tmp_path}/with-rules/etc/rules/handmade.yml on with-rules, which this role did not write"
        in told["with-rules"]
    )
    assert "llm_monitoring_alertmanager_install_method" in told["alerting"]
    assert "llm_monitoring_replace_foreign: true" in told["alerting"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_unreachable_mirror_is_told_with_the_variable_that_names_another(tmp_path):
    mirror = f"127.0.0.1:{free_port()}"
    host = {
        "__llm_monitoring_part": {"name": "prometheus"},
        "llm_monitoring_mirror": f"http://reader:sesame@{mirror}",
    }
    (tmp_path / "opt").mkdir()
    given = {"opt": str(tmp_path / "opt"), "user": "www-data", "architecture": "amd64"}
    given = {f"__llm_monitoring_{name}": value for name, value in given.items()}
    nothing = {"usermod": "exit 0", "groupmod": "exit 0"}  # somebody who is here, and stays as he is
    told = outcomes(tmp_path, {"mon1": host}, ["install_archive"], nothing, "-e", json.dumps(given))["mon1"]
    assert re.search(rf"mon1: http://{mirror}/prometheus-\S+[.]tar[.]gz cannot be\s+fetched: .*refused", told)
    assert "Set llm_monitoring_mirror to a mirror that the host reaches" in told
    assert "llm_monitoring_prometheus_sha256" in told
    assert "sesame" not in told


EXISTING: dict[str, object] = {
    **{
        f"llm_monitoring_{part}_install_method": "none"
        for part in ("prometheus", "alertmanager", "blackbox", "grafana")
    },
    "llm_monitoring_rules_directory": "{{ place }}/etc/rules",
    "llm_monitoring_existing_prometheus_unit": "prometheus.service",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives rules to root")
def test_rules_for_an_existing_prometheus_are_checked_by_its_promtool(tmp_path):
    (tmp_path / "good.yml").write_text("groups: [{name: a, rules: [{record: a:b, expr: sum(up)}]}]")
    (tmp_path / "bad.yml").write_text("groups: [{name: a, rules: [{record: a:b, expr: sum(up}]}]")
    hosts = {
        name: {**EXISTING, "llm_monitoring_rule_files": [str(tmp_path / f"{name}.yml")]} for name in ("good", "bad")
    }
    steps = ["preflight_existing", "configure_rules"]
    told = outcomes(tmp_path, hosts, steps, {"promtool": f'exec {program("promtool")} "$@"'})
    assert told["good"] == ""
    assert "bad.yml is not valid, nothing was written: promtool says" in told["bad"]
    assert not list((tmp_path / "bad" / "etc" / "rules").iterdir())
    assert len(list((tmp_path / "good" / "etc" / "rules").iterdir())) > 5
    assert (tmp_path / "told").read_text() == "reload prometheus.service\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives rules to root")
def test_without_a_promtool_an_existing_prometheus_gets_our_rules_alone(tmp_path):
    hosts = {
        "ours": EXISTING,
        "theirs": {**EXISTING, "llm_monitoring_rule_files": ["files/our-service.yml"]},
    }
    told = outcomes(tmp_path, hosts, ["preflight_existing", "configure_rules"], {"promtool": "exit 127"})
    assert told["ours"] == ""
    assert list((tmp_path / "ours" / "etc" / "rules").iterdir())
    assert "llm_monitoring_rule_files names files/our-service.yml, and theirs has no promtool" in told["theirs"]


def test_an_existing_prometheus_is_asked_for_the_rules(tmp_path):
    names = [path.name for path in (ROLE / "files" / "rules").glob("*.yml")]

    def loaded(*found):
        groups = [{"file": f"/etc/prometheus/rules/{name}"} for name in found]
        return lambda method, path, sent: (200, {"data": {"groups": groups}})

    with Web(loaded(*names)) as whole, Web(loaded(*names[1:])) as lacking:
        urls = {"whole": f"{whole.url}/", "lacking": lacking.url, "silent": ""}
        hosts = {host: {**EXISTING, "llm_monitoring_datasource_url": url} for host, url in urls.items()}
        hosts["untold"] = {**hosts["lacking"], "llm_monitoring_existing_prometheus_unit": ""}
        told = outcomes(tmp_path, hosts, ["verify"])
    assert {asked[1] for asked in whole.asked} == {"/api/v1/rules"}
    assert [host for host, text in told.items() if text] == ["lacking"]
    assert f"answers 200, needed is 200; rule files that it does not have: {names[0]}." in told["lacking"]
    assert "/etc/rules/*.yml under rule_files" in told["lacking"]


def test_grafana_is_asked_to_read_datasources_anew_and_restarted_where_it_does_not(tmp_path):
    login = ("admin", "grafana-0123456789")

    def asked(host, url, password):
        return {
            **EXISTING,
            "llm_monitoring_grafana_url": url,
            "llm_monitoring_grafana_admin_password": password,
            "llm_monitoring_existing_grafana_unit": f"{host}.service",
            "notified": "Reload Grafana",
        }

    with Web(lambda method, path, sent: (200, {"message": "reloaded"}), login) as grafana:
        hosts = {
            "reloaded": asked("reloaded", f"{grafana.url}/", login[1]),
            "refused": asked("refused", grafana.url, "another-0123456789"),
            "nameless": asked("nameless", "", ""),
            "nobody": {**asked("nobody", "", ""), "llm_monitoring_existing_grafana_unit": ""},
        }
        told = outcomes(tmp_path, hosts, ["preflight_existing"])
        assert set(told.values()) == {""}
        reload = "/api/admin/provisioning/{}/reload"
        posted = [("POST", reload.format(kind)) for kind in ("datasources", "dashboards")]
        assert {(method, path) for method, path, _sent in grafana.asked} == set(posted)
        units = (tmp_path / "told").read_text().splitlines()
        assert sorted(units) == ["restart nameless.service", "restart refused.service"]
        (tmp_path / "told").unlink()
        outcomes(tmp_path, hosts, ["preflight_existing"], None, "--check")
        assert not (tmp_path / "told").exists()
