# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout, and who carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._rollout import plan as rollout_plan
from ansible_collections.llmops.vllm.plugins.module_utils._rollout import run as rollout_run


def _plan(
    replicas: Sequence[Mapping[str, Any]],
    action: str,
    options: Mapping[str, Any],
    seen: Mapping[str, Mapping[str, Any]],
    staged: Mapping[str, Iterable[Mapping[str, Any]]],
    balancers: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    return rollout_plan.plan(action, options, replicas, seen, staged, balancers)


def _below(entry: Mapping[str, Any], statuses: Iterable[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    return rollout_plan.below(statuses, entry, options)


class FilterModule:
    """Filters of the rollout; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "rollout_plan": _plan,
            "rollout_below": _below,
            "rollout_identity": rollout_run.identity,
            "rollout_dead": rollout_run.dead,
            "rollout_steps": rollout_run.steps,
        }
