"""Names of our own metrics, which look like variables."""

from __future__ import annotations

from ansible_collections.llmops.vllm.plugins.module_utils._agent import exposition
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import textfile as monitoring_textfile
from ansible_collections.llmops.vllm.plugins.module_utils._release import meaning as release_meaning
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import metrics as rollout_metrics

from tests import log_exporter

OURS = {
    *exposition.GAUGES,
    exposition.EVENTS,
    *rollout_metrics.LAST,
    *rollout_metrics.RUNNING,
    *monitoring_textfile.GAUGES,
    *log_exporter.NAMES,
    release_meaning.INFO,
}
