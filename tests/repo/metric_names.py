"""Names of our own metrics, which look like variables."""

from __future__ import annotations

from ansible_collections.llmops.vllm.plugins.module_utils import _monitoring_textfile, _rollout_metrics
from ansible_collections.llmops.vllm.plugins.module_utils._agent import exposition

from tests import log_exporter

OURS = {
    *exposition.GAUGES,
    exposition.EVENTS,
    *_rollout_metrics.LAST,
    *_rollout_metrics.RUNNING,
    *_monitoring_textfile.GAUGES,
    *log_exporter.NAMES,
}
