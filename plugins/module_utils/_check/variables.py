# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with names and types of the roles' variables, as their argument specs tell.

The judge is Ansible's own validator of argument specs, the one that runs when a role starts, so that what passes here
passes there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .problem import Problem, is_secret, kind_of, shown, value_of

PREFIXES = ("gpu_driver_", "llmops_", "llm_balancer_", "llm_exporters_", "llm_model_", "llm_monitoring_", "vllm_")


class Judge:
    """Judges variables by the specs of all roles; one value on many hosts is judged once."""

    def __init__(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the options of the roles' specs, and the variables of the whole collection, by name."""
        self._specs = specs
        self._seen: dict[tuple[str, str], str] = {}

    def types(self, host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the variables of this host that have a wrong type."""
        for name in self._specs.keys() & variables.keys():
            value = variables[name]
            wrong = self._type_problem(name, value)
            if wrong:
                secret = _secret(name, self._specs[name])
                text = f"is {kind_of(value)}: {wrong}" if secret else f"{shown(name, value)}: {wrong}"
                yield Problem(host, name, "" if secret else value_of(name, value), text)

    def names(self, host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the variables of this host that are nearly ours; other names are not ours to judge."""
        for name in variables:
            if not self._specs or name in self._specs or not name.startswith(PREFIXES):
                continue
            near = difflib.get_close_matches(name, self._specs, n=1, cutoff=0.88)
            # Inventories hold variables of their own; a plural beside its singular is one.
            if near and not (name == f"{near[0]}s" and near[0] in variables):
                secret = _secret(near[0], self._specs[near[0]])
                text = f"is no variable of the collection (did you mean {near[0]!r}?): correct its name"
                yield Problem(host, name, "" if secret else value_of(name, variables[name]), text)

    def _type_problem(self, name: str, value: Any) -> str:
        if value is None and name.startswith("llmops_"):
            return ""  # as if it were absent
        if value is None:
            default = self._specs[name].get("default")
            return f"{_wanted(self._specs[name])}, or remove the line" if default is not None else ""
        seen = (name, repr(value))
        if seen not in self._seen:
            self._seen[seen] = self._judge(name, value)
        return self._seen[seen]

    def _judge(self, name: str, value: Any) -> str:
        spec = self._specs[name]
        if spec["type"] == "raw":
            return ""  # a list or a text, say: whoever reads it judges it
        # The validator would make a list of a text, and a text of a list; the roles use what was written.
        is_collection = spec["type"] in ("list", "dict")
        kind = "dict" if isinstance(value, Mapping) else "list" if isinstance(value, (list, tuple)) else ""
        if kind != (spec["type"] if is_collection else ""):
            return _wanted(spec)
        if name == "vllm_replicas":
            return ""  # entry by entry, in _check.hosts
        try:
            found = ArgumentSpecValidator({name: _plain(spec)}).validate({name: value}).error_messages
        except Exception as error:  # what it meets in an entry may be anything
            found = [type(error).__name__]
        if not found or not is_collection:
            return _wanted(spec) if found else ""
        if _secret(name, spec) or "options" in spec:
            return f"correct its entries; they take {', '.join(spec.get('options', {'texts': 0}))}"
        return f"{found[0]}: correct the entry"


_KINDS = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "str": "a text",
}


def _wanted(spec: Mapping[str, Any]) -> str:
    if "choices" in spec:
        return f"give one of {', '.join(map(str, spec['choices']))}"
    return f"give {_KINDS[spec['type']]}"


def _secret(name: str, spec: Mapping[str, Any]) -> bool:
    inner = (spec.get("options") or {}).items()
    return bool(spec.get("no_log")) or is_secret(name.rpartition("_")[2]) or any(_secret(*option) for option in inner)


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec as the validator takes it: without the texts, and without defaults that could hide a mistake."""
    kept = {key: value for key, value in spec.items() if key not in ("description", "default", "version_added")}
    if "options" in kept:
        kept["options"] = {name: _plain(option) for name, option in kept["options"].items()}
    return kept
