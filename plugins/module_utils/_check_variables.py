# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with names and types of the roles' variables, as their argument specs tell.

The judge is Ansible's own validator of argument specs, the one that runs when a role starts, so that what passes here
passes there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ._problem import Problem, suggest

PREFIXES = ("llmops_", "llm_balancer_", "llm_model_", "vllm_")


class Judge:
    """Judges variables by the specs of all roles; one value on many hosts is judged once."""

    def __init__(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the options of the roles' specs, and the variables of the whole collection, by name."""
        self._specs = specs
        self._seen: dict[tuple[str, str], str] = {}

    def problems(self, host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the variables of this host that are misspelt or of a wrong type; other names are not ours to judge."""
        for name, value in variables.items():
            if name in self._specs:
                wrong = self._type_problem(name, value)
                if wrong:
                    shown = "" if _secret(self._specs[name]) else repr(value)
                    yield Problem(host, name, shown, f"is {shown}: {wrong}" if shown else wrong)
            elif self._specs and name.startswith(PREFIXES):
                near = suggest(name, self._specs, cutoff=0.88)
                # Inventories hold variables of their own, whatever their names; one that is nearly ours is a slip.
                if near:
                    shown = "" if name.endswith(("_key", "_keys", "_token", "_password")) else repr(value)
                    yield Problem(host, name, shown, f"is no variable of the collection{near}: correct its name")

    def _type_problem(self, name: str, value: Any) -> str:
        if value is None:
            return ""
        seen = (name, json.dumps(value, sort_keys=True, default=str))
        if seen not in self._seen:
            self._seen[seen] = self._judge(name, value)
        return self._seen[seen]

    def _judge(self, name: str, value: Any) -> str:
        spec = self._specs[name]
        found = ArgumentSpecValidator({name: _plain(spec)}).validate({name: value})
        if not found.error_messages:
            return ""
        if "choices" in spec:
            return f"give one of {', '.join(map(str, spec['choices']))}"
        if isinstance(value, {"list": list, "dict": Mapping}.get(spec["type"], ())):
            return f"{found.error_messages[0]}: correct the entry"
        return f"give {_KINDS.get(spec['type'], spec['type'])}"


_KINDS = {"int": "a whole number", "bool": "true or false", "list": "a list", "dict": "a mapping", "str": "a text"}


def _secret(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("no_log")) or any(_secret(option) for option in (spec.get("options") or {}).values())


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec as the validator takes it: without the texts, and without defaults that could hide a mistake."""
    kept = {key: value for key, value in spec.items() if key not in ("description", "default", "version_added")}
    if "options" in kept:
        kept["options"] = {name: _plain(option) for name, option in kept["options"].items()}
    return kept
