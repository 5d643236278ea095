# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with how models reach the hosts, as far as variables tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _fleet
from ._model_tools import command_problem
from ._problem import Problem
from ._revision import BUCKETS


def problems(hostvars: Mapping[str, Mapping[str, Any]], fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield what is wrong with the tools, and with revisions that two sources claim."""
    yield from _tools(hostvars, fleet)
    yield from _same_revision(hostvars, fleet)


def _tools(hostvars: Mapping[str, Mapping[str, Any]], fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    seen = set()
    for replica in fleet:
        host, source = replica["host"], replica["model_source"]
        command = str(_fleet.setting(hostvars[host], "llm_model_bucket_command", ""))
        if source.startswith(BUCKETS) and (host, source) not in seen:
            seen.add((host, source))
            wrong = command_problem(source, command)
            if wrong:
                yield Problem(host, "llm_model_bucket_command", repr(command), wrong)


def _same_revision(hostvars: Mapping[str, Mapping[str, Any]], fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """A revision is a directory of the host: of two sources with one name and one label, one would never be brought."""
    owners: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for replica in fleet:
        place = (replica["host"], replica["model_name"], replica["model_revision"])
        owner = owners.setdefault(place, replica)
        if replica["model_revision"] and owner["model_source"] != replica["model_source"]:
            yield Problem(
                replica["host"],
                _fleet.origin(hostvars[replica["host"]], replica["name"], "model_revision"),
                replica["model_revision"],
                f"is {replica['model_revision']!r} for {replica['model_source']}, and {owner['id']} has the same "
                f"revision of {replica['model_name']} from {owner['model_source']}: give each a label of its own",
            )
