# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks: what is measured, whether it may be, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark import plan as benchmark_plan
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark import report as benchmark_report


def _plain(value: Any) -> Any:
    """The value without the containers of ansible-core, which wrap_var cannot copy."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _report(result: Mapping[str, Any], entry: Mapping[str, Any], about: Mapping[str, Any], directory: str) -> Any:
    # it holds what servers and files said: braces in it are no templates, which ansible-core before 2.19 must be told
    return wrap_var(_plain(benchmark_report.report(result, entry, about, directory)))


class FilterModule:
    """Filters of the benchmark; documented in the ``.yml`` files beside this one."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "benchmark_plan": benchmark_plan.plan,
            "benchmark_judge": benchmark_plan.judge,
            "benchmark_key": benchmark_plan.key,
            "benchmark_report": _report,
        }
