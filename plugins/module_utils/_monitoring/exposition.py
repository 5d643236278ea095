# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples as a text that Prometheus reads: for the textfile collector of the node exporter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.exposition import braced

Sample = tuple[str, dict[str, str], Any]  # name, labels, value; None for a value that is not known


def text(gauges: Mapping[str, str], samples: Iterable[Sample]) -> str:
    """Return the samples below their names and helps, in the order of ``gauges``; what has no sample is left out."""
    known = [sample for sample in samples if sample[2] is not None]
    lines: list[str] = []
    for name, told in gauges.items():
        own = [f"{name}{braced(labels)} {value:.15g}" for of, labels, value in known if of == name]
        if own:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge", *own]
    return "".join(f"{line}\n" for line in lines)
