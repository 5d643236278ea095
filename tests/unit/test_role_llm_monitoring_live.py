"""Role llm_monitoring: the real programs run by its flags and files, on loopback, and do what they are for."""

from __future__ import annotations

import json
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.vllm.running import KEY, Fake, await_that
from tests.monitoring_role import ROLE, Rendered
from tests.monitoring_services import Service, running

ALL = {"severity": "page", "group": "health", "pool": "chat", "host": "gpu1", "replica": "gpu1/r0"}


@pytest.fixture(scope="module")
def prometheus(monitoring_examples: dict[str, Rendered], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running("prometheus", monitoring_examples["secured"], tmp_path_factory.mktemp("prometheus")) as service:
        yield service


@pytest.fixture(scope="module")
def alertmanager(
    monitoring_examples: dict[str, Rendered], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with running("alertmanager", monitoring_examples["secured"], tmp_path_factory.mktemp("alertmanager")) as service:
        yield service


def test_pages_open_for_users_alone(prometheus):
    assert prometheus.ask("/api/v1/rules")[0] == 200
    assert prometheus.ask("/api/v1/rules", password="wrong-0123456789")[0] == 401
    assert prometheus.ask("/api/v1/rules", user="nobody")[0] == 401


def test_rules_are_loaded(prometheus):
    groups = prometheus.json("/api/v1/rules")["data"]["groups"]
    loaded = {pathlib.PurePath(group["file"]).name for group in groups}
    assert loaded == {path.name for path in (ROLE / "files" / "rules").glob("*.yml")}


def test_a_new_target_is_read_without_a_reload(prometheus):
    def replicas() -> set[str]:
        active = prometheus.json("/api/v1/targets?state=active")["data"]["activeTargets"]
        return {target["labels"]["replica"] for target in active if target["labels"]["job"] == "vllm"}

    await_that(lambda: replicas() == {"gpu1/r0", "gpu2/r0"}, "the replicas of the inventory are targets")
    path = prometheus.etc / "targets" / "replicas.json"
    targets = json.loads(path.read_text())
    targets.append({"targets": ["192.0.2.23:8000"], "labels": {"replica": "gpu3/r0", "host": "gpu3"}})
    path.write_text(json.dumps(targets))
    await_that(lambda: "gpu3/r0" in replicas(), "the new one is a target")


@pytest.mark.parametrize(
    ("source", "target", "silenced"),
    [
        ({"alertname": "LLMPoolDown", "pool": "chat"}, {**ALL, "alertname": "LLMReplicaDown"}, True),
        ({"alertname": "LLMPoolDown", "pool": "chat"}, {**ALL, "alertname": "LLMReplicaDown", "pool": "batch"}, False),
        ({"alertname": "LLMPoolDown", "pool": "chat"}, {"alertname": "LLMNoTargets", "group": "health"}, False),
        (
            {"alertname": "LLMPoolDown", "pool": "chat"},
            {**ALL, "alertname": "LLMServiceDown", "group": "balancer"},
            True,
        ),
        ({**ALL, "alertname": "LLMReplicaDown"}, {**ALL, "alertname": "LLMModelNotServed"}, True),
        ({**ALL, "alertname": "LLMReplicaDown"}, {**ALL, "alertname": "LLMTTFTHigh", "replica": "gpu2/r0"}, False),
        ({**ALL, "alertname": "LLMReplicaDown"}, {"alertname": "LLMPoolBelowMinimum", "pool": "chat"}, True),
        ({"alertname": "LLMHostDown", "host": "gpu1", "severity": "ticket"}, {**ALL, "alertname": "LLMAny"}, False),
        (
            {"alertname": "LLMHostDown", "host": "gpu1", "severity": "ticket"},
            {**ALL, "alertname": "LLMGpuExporterDown", "severity": "ticket"},
            True,
        ),
        (
            {"alertname": "LLMBalancerDown", "host": "lb1", "severity": "page"},
            {"alertname": "LLMBalancerAgentDown", "host": "lb1", "severity": "ticket", "group": "balancer"},
            True,
        ),
        ({"alertname": "LLMBalancerDown", "host": "gpu1"}, {**ALL, "alertname": "LLMReplicaDown"}, False),
        ({"alertname": "LLMServiceDown"}, {"alertname": "LLMErrorRateHigh", "pool": "chat", "severity": "page"}, True),
    ],
    ids=lambda value: value.get("alertname") if isinstance(value, dict) else None,
)
def test_one_cause_pages_once(alertmanager, request, source, target, silenced):
    # Alerts of a case have a label of their own, by which they are found; equal labels do not name it.
    case = request.node.name
    for labels in (source, target):
        assert alertmanager.ask("/api/v2/alerts", [{"labels": {**labels, "case": case}}])[0] == 200

    def states() -> dict[str, str]:
        found = alertmanager.json("/api/v2/alerts?filter=" + urllib.parse.quote(f'case="{case}"'))
        return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in found}

    wanted = {source["alertname"]: "active", target["alertname"]: "suppressed" if silenced else "active"}
    try:
        await_that(lambda: states() == wanted, f"{wanted}, and not {states()}")
    finally:
        ended = "2020-01-01T00:00:00Z"
        gone = [{"labels": {**labels, "case": case}, "startsAt": ended, "endsAt": ended} for labels in (source, target)]
        alertmanager.ask("/api/v2/alerts", gone)
        await_that(lambda: states() == {}, "the alerts of the case are gone")


def test_probes_tell_a_replica_that_generates(
    monitoring_examples: dict[str, Rendered], tmp_path: pathlib.Path, start: Callable[..., Fake]
):
    replica = start(**{"served-model-name": ["llama.70b"]})
    with running("blackbox", monitoring_examples["secured"], tmp_path) as blackbox:
        (blackbox.etc / "secrets" / "llm-backend-key").write_text(KEY)

        def succeeds(kind: str, path: str, model: str = "llama.70b") -> bool:
            target = urllib.parse.urlencode(
                {"module": f"{kind}:{model}", "target": f"http://127.0.0.1:{replica.port}{path}"}
            )
            return "\nprobe_success 1\n" in blackbox.ask(f"/probe?{target}")[1]

        assert succeeds("models", "/v1/models")
        assert succeeds("completion", "/v1/completions")
        (blackbox.etc / "secrets" / "llm-backend-key").write_text("x" * 32)
        assert not succeeds("completion", "/v1/completions")
