"""The role llm_exporters without a host: its variables as Ansible resolves them for a host of an example fleet."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from tests.role_templates import environment

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core before 2.19 takes any text for a template

    def trust_as_template(value: str) -> str:
        """Return the text."""
        return value


ROLE = pathlib.Path(__file__).resolve().parent.parent / "roles" / "llm_exporters"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
GROUPS = {"llm_balancers": ["lb1"], "llm_servers": ["gpu1"], "llm_monitors": ["mon1"]}
ADDRESS = "192.0.2.9"


def _trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: _trusted(inner) for key, inner in value.items()}
    return [_trusted(inner) for inner in value] if isinstance(value, list) else value


def resolve(name: str, host: str, **variables: Any) -> Any:
    """Return a variable of the role on a host with these variables of its own."""
    facts = {"architecture": "x86_64"} | variables.pop("facts", {})
    known = {
        **DEFAULTS,
        **VARS,
        **{"ansible_facts": facts, "groups": GROUPS, "inventory_hostname": host, "llmops_address": ADDRESS},
        **variables,
    }
    return Templar(DataLoader(), variables=_trusted(known)).template(trust_as_template(f"{{{{ {name} }}}}"))


def units(host: str, **variables: Any) -> dict[str, dict[str, Any]]:
    """Return the units that a host gets, by name of the exporter."""
    return {unit["name"]: unit for unit in resolve("__llm_exporters_here", host, **variables)}


def render(template: str, **values: Any) -> str:
    """Render a template of the role with these values."""
    return environment(ROLE).get_template(template).render({"ansible_managed": "Ansible managed", **values})


def unit_text(unit: dict[str, Any]) -> str:
    """Return the file of a unit."""
    return render("exporter.service.j2", __llm_exporters_it=unit, __llm_exporters_user=VARS["__llm_exporters_user"])
