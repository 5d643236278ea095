# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of rollouts: made, read, told to people and to Prometheus, and used to say how long the next one takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import metrics as rollout_metrics
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import reading as rollout_reading
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import record as rollout_record
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import summary as rollout_summary
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import times as rollout_times


def _records(directory: str, pools: Any = ()) -> Any:
    # files hold what servers said: braces in it are no templates, which ansible-core before 2.19 must be told
    return wrap_var(rollout_reading.records(directory, pools))


class FilterModule:
    """Filters over records of rollouts; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "rollout_record": rollout_record.record,
            "rollout_records": _records,
            "rollout_summary": rollout_summary.summary,
            "rollout_metrics": rollout_metrics.metrics,
            "rollout_metrics_running": rollout_metrics.progress,
            "rollout_step_times": rollout_times.step_times,
            "rollout_estimate": rollout_times.estimate,
        }
