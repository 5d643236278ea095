"""Everything that is watched tells something: targets, rules, panels. After the faults, so that they were seen."""

from __future__ import annotations

import re
import sys
import time

import pytest

from tests.traffic import pages
from tests.traffic.fleet import WATCHED_REAL, await_that, sh
from tools.dashboards import live
from tools.sandbox.environment import monitoring_url
from tools.sandbox.layout import PKI

JOBS = {
    "agent": 2,
    "alertmanager": 1,
    "balancer_log": 2,
    "blackbox": 1,
    "nginx": 2,
    "node": 6,
    "probe_completion": 3,
    "probe_models": 3,
    "probe_service": 1,
    "prometheus": 1,
    "vllm": 3,
}

# series that nothing here tells, as no host has a GPU and no rollout is played; whatever else vanishes is a fault
NOT_HERE = {
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "llmops_gpu_memory_utilization_target",
    "llmops_gpus_expected",
    "llmops_rollout_in_progress",
    "llmops_rollout_last_result",
    "nvidia_smi_fabric_state",
    "nvidia_smi_gpu_recovery_action",
}


def test_every_target_answers() -> None:
    def jobs() -> dict[str, float]:
        return {dict(labels)["job"]: count for labels, count in pages.value("count by (job) (up == 1)").items()}

    await_that(lambda: jobs() == JOBS, f"targets that answer are {JOBS}", 120)


def test_every_rule_is_evaluated() -> None:
    told = pages.rules()
    assert len(told) > 200
    assert [rule["name"] for rule in told if rule["health"] != "ok"] == []


def test_every_recording_rule_had_a_value_but_those_of_gpus_and_of_native_histograms() -> None:
    names = {rule["name"] for rule in pages.rules() if rule["type"] == "recording"}
    wanted = {name for name in names if not name.startswith(("gpu:", "host:gpus:")) and ":native_" not in name}
    assert len(wanted) > 90

    def dead() -> set[str]:
        return {name for name in wanted if not pages.value(f"last_over_time({name}[1h])")}

    await_that(lambda: not dead(), "every recording rule has had a value", 420)


def test_every_panel_shows_something(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PROMETHEUS_URL", monitoring_url(9090))
    monkeypatch.setenv("LLMOPS_CA", str(PKI / "ca.crt"))
    monkeypatch.setattr(sys, "argv", ["live", "--wait", "7m", "--range", "40m"])
    status = live.main()
    told = capsys.readouterr().out
    print(told)
    assert status == 0, told
    assert set(re.findall(r"there is no (\S+)$", told, re.MULTILINE)) <= NOT_HERE


def test_a_new_target_is_seen_without_a_restart() -> None:
    """As whoever adds a host writes it: into the file of targets."""
    replica, place = WATCHED_REAL.replicas[0], "/etc/prometheus/targets/replicas.json"
    before, begin = sh("mon1", f"cat {place}"), time.time()
    entry = f'{{"targets": ["{replica.endpoint}"], "labels": {{"replica": "new/r0", "host": "new"}}}}'
    sh("mon1", f"cat > {place}.new && mv {place}.new {place}", given=before.rstrip().rstrip("]") + f", {entry}]")
    try:
        await_that(lambda: pages.value('up{job="vllm",replica="new/r0"} == 1'), "the new target is up", 60)
        print(f"new target: seen after {time.time() - begin:.1f} s")
    finally:
        sh("mon1", f"cat > {place}.new && mv {place}.new {place}", given=before)
    await_that(lambda: not pages.value('up{job="vllm",replica="new/r0"}'), "the target that went is not seen", 60)
