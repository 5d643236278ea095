# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with how models reach the hosts, as far as variables tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import _fleet
from .._model.revision import BUCKETS, revision_problem, source_problem
from .._model.tools import command_problem
from .._vllm.settings import flag_names
from .problem import Problem, kind_of, suggest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EXAMPLE = "[{name: support, source: hf://example/support-lora, revision: 40 digits}]"


def problems(hostvars: Mapping[str, Mapping[str, Any]], fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield what is wrong with adapters, with the tools, and with revisions that two sources claim."""
    for replica in fleet:
        yield from _adapters(replica, hostvars[replica["host"]])
    for pool in _fleet.pools(fleet):
        yield from _same_adapters(pool)
    yield from _tools(hostvars, fleet)
    yield from _same_revision(hostvars, fleet)


def _adapters(replica: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    host = replica["host"]
    variable = _fleet.origin(variables, replica["name"], "adapters")
    entry = next((e for n, e in enumerate(_fleet.entries(variables)) if _fleet.entry_name(n, e) == replica["name"]), {})
    written = _fleet.setting(entry, "adapters", _fleet.setting(variables, "llmops_adapters", []))
    if not isinstance(written, list) or not all(isinstance(one, Mapping) for one in written):
        found = "a list with other things" if isinstance(written, list) else kind_of(written)
        yield Problem(host, variable, found, f"is {found}: give a list of mappings, such as {_EXAMPLE}")
        return
    seen = {replica["model_name"]}
    for number, one in enumerate(written):
        yield from _adapter(host, f"{variable}[{number}]", one, seen)
        seen.add(str(one.get("name")))
    flags = flag_names(_fleet.setting(variables, "vllm_flags", {})) | flag_names(replica["flags"])
    if written and "lora-modules" in flags:
        text = "is set, and llmops_adapters sets it, too: keep one of them"
        yield Problem(host, "vllm_flags.lora-modules", "", text)


def _adapter(host: str, variable: str, one: Mapping[str, Any], seen: set[str]) -> Iterator[Problem]:
    for key in one:
        if key not in _fleet.ADAPTER_KEYS:
            known = ", ".join(_fleet.ADAPTER_KEYS)
            text = f"is no setting of an adapter{suggest(key, _fleet.ADAPTER_KEYS)}: known are {known}"
            yield Problem(host, f"{variable}.{key}", "", text)
    name, source, revision = (str(_fleet.setting(one, key, "")) for key in _fleet.ADAPTER_KEYS)
    if not _NAME.fullmatch(name):
        text = f"is {name!r}: clients call it so, and it becomes a directory: use letters, digits, '.', '_' and '-'"
        yield Problem(host, f"{variable}.name", repr(name), text)
    elif name in seen:
        text = f"is {name!r}, which another adapter or the model has: give each a name of its own"
        yield Problem(host, f"{variable}.name", repr(name), text)
    wrong = source_problem(source)
    if wrong:
        yield Problem(host, f"{variable}.source", "", wrong)
        return
    wrong = revision_problem(source, revision)
    if wrong:
        yield Problem(host, f"{variable}.revision", repr(revision), wrong)


def _same_adapters(pool: Mapping[str, Any]) -> Iterator[Problem]:
    """Replicas of a pool stand in for each other, so they have the same names; revisions may differ, as a trial."""
    first = pool["replicas"][0]
    names = sorted(adapter["name"] for adapter in first["adapters"])
    for replica in pool["replicas"]:
        mine = sorted(adapter["name"] for adapter in replica["adapters"])
        if mine != names:
            text = (
                f"differs within pool {pool['name']!r}: {', '.join(names) or 'none'} on {first['id']}, "
                f"{', '.join(mine) or 'none'} on {replica['id']}. Give all replicas of a pool the same adapters"
            )
            yield Problem("", "llmops_adapters", ", ".join(mine), text)
            return


def _tools(hostvars: Mapping[str, Mapping[str, Any]], fleet: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    seen = set()
    for replica in fleet:
        host = replica["host"]
        command = str(_fleet.setting(hostvars[host], "llm_model_bucket_command", ""))
        for source in (row["source"] for row in _fleet.models([replica])):
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
