"""Role llm_monitoring with native histograms: a real Prometheus 3 by its flags and files, and a replica."""

from __future__ import annotations

import json
import pathlib
import urllib.parse
from collections.abc import Callable

import pytest

from tests.fakes.vllm.running import Fake, await_that
from tests.monitoring_role import Rendered
from tests.monitoring_services import running
from tools import promtool
from tools.debian_packages import NoPackage


def test_native_histograms_are_one_series_each_and_rules_read_them(
    monitoring_examples: dict[str, Rendered], tmp_path: pathlib.Path, start: Callable[..., Fake]
):
    try:
        prometheus_3 = promtool.ensure("3", "prometheus")
    except NoPackage as reason:
        pytest.skip(str(reason))
    replica = start()
    assert [replica.complete()[0] for _number in range(3)] == [200] * 3
    with running("prometheus", monitoring_examples["native"], tmp_path, instead=prometheus_3) as prometheus:

        def asked(expression: str) -> list[float]:
            found = prometheus.json("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["data"]["result"]
            return [float(series["value"][1]) for series in found]

        labels = {"replica": "gpu1/r0", "host": "gpu1", "pool": "chat"}
        targets = [{"targets": [f"127.0.0.1:{replica.port}"], "labels": labels}]
        (prometheus.etc / "targets" / "replicas.json").write_text(json.dumps(targets))
        await_that(lambda: asked("histogram_count(vllm:time_to_first_token_seconds)") == [3], "a histogram is there")
        assert asked('count({__name__=~".+_bucket",job="vllm"})') == []
        (series,) = asked('scrape_samples_post_metric_relabeling{job="vllm"}')
        assert 60 < series <= 110
        await_that(lambda: asked("replica:vllm_engine_steps:sum > 0"), "a rule has read it")
