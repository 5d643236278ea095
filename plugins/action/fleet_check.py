# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks an inventory on the controller: an action, because it reads the variables of all hosts and connects to none.

Keys reach it as variables and never as arguments of a module. The logic is in ``module_utils/_fleet_check.py``.
"""

from __future__ import annotations

import datetime
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar
from ansible_collections.llmops.vllm.plugins.module_utils import _check_variables, _fleet_check
from ansible_collections.llmops.vllm.plugins.module_utils._problem import Problem

_COLLECTION = pathlib.Path(__file__).resolve().parents[2]
# Where a host's own variables and ours meet: all that the judges look at.
_READ = (*_check_variables.PREFIXES, "ansible_host")
_ARGUMENTS = {
    "server_group": {"type": "str", "default": "llm_servers"},
    "balancer_group": {"type": "str", "default": "llm_balancers"},
    "monitor_group": {"type": "str", "default": "llm_monitors"},
    "min_days": {"type": "int", "default": 0},
    "quiet": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """``llmops.vllm.fleet_check``."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the variables, judge them, show the report; never fails because of what it found."""
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(_ARGUMENTS)
        task_vars = task_vars or {}
        groups = task_vars["groups"]
        named = {name: str(arguments[name]) for name in ("server_group", "balancer_group", "monitor_group")}
        self._hosts = _Hosts(task_vars["hostvars"], self._loader)
        hosts = dict.fromkeys(host for group in named.values() for host in groups.get(group, []))
        inventory = _fleet_check.Inventory(
            {host: self._hosts.read(host) for host in hosts},
            groups,
            **named,
            specs=specs(),
            certificate=functools.lru_cache(maxsize=None)(self._certificate),
            model_config=self._model_config,
        )
        now = datetime.datetime.now(datetime.timezone.utc)
        report = _fleet_check.check(inventory, now, arguments["min_days"], self._hosts.broken)
        if not (report.ok and arguments["quiet"]):
            for line in report.lines():
                self._display.display(line)
        return {**result, "changed": False, "ok": report.ok, "report": report.as_dict(), "msg": report.lines()[0]}

    def _certificate(self, host: str) -> dict[str, Any] | None:
        variables = self._hosts.read(host)
        certificate = self._text(host, variables.get("llm_balancer_tls_certificate"))
        key = self._text(host, variables.get("llm_balancer_tls_key"))
        if certificate is None or key is None:
            return None
        facts = {
            "certificate": _filtered("community.crypto.x509_certificate_info", certificate),
            "private_key": _filtered("community.crypto.openssl_privatekey_info", key),
        }
        return {"certificate_pem": certificate, "key_pem": key, **(facts if None not in facts.values() else {})}

    def _text(self, host: str, value: Any) -> str | None:
        """Return PEM text that was given, or that of the file; vaulted files are read, too."""
        if not value or "-----BEGIN" in str(value):
            return str(value) if value else None
        path = self._hosts.path(host, str(value))
        if path is None:
            return None
        try:
            reader = lookup_loader.get("ansible.builtin.file", loader=self._loader)
            return str(reader.run([str(path)], variables={})[0])
        except AnsibleError:
            return None

    def _model_config(self, replica: Mapping[str, Any]) -> Mapping[str, Any] | None:
        scheme, _sep, directory = str(replica["model_source"]).partition("://")
        named = replica["model_config"] or (f"{directory}/config.json" if scheme == "controller" else "")
        paths = [named, f"{named}/config.json"] if named else []  # the file, or the directory that holds it
        found = next(filter(None, (self._hosts.path(replica["host"], path) for path in paths)), None)
        return _json(found) if found else None


class _Hosts:
    """Evaluated variables by host; what could not be evaluated is in ``broken``."""

    def __init__(self, hostvars: Any, loader: Any) -> None:
        self._hostvars, self._loader = hostvars, loader
        self._read: dict[str, dict[str, Any]] = {}
        self._directories: dict[str, list[pathlib.Path]] = {}
        self.broken: list[Problem] = []

    def read(self, host: str) -> dict[str, Any]:
        """Return what the judges look at, null left out as if it were absent."""
        if host not in self._read:
            raw = {**self._hostvars.raw_get(host), "hostvars": self._hostvars}
            self._directories[host] = [pathlib.Path.cwd(), pathlib.Path(raw.get("inventory_dir") or ".")]
            templar = Templar(loader=self._loader, variables=raw)
            values = {name: self._value(host, name, raw[name], templar) for name in raw if name.startswith(_READ)}
            self._read[host] = {name: value for name, value in values.items() if value is not None}
        return self._read[host]

    def _value(self, host: str, name: str, raw: Any, templar: Templar) -> Any:
        try:
            return templar.template(raw)
        except AnsibleError as error:
            reason = " ".join(str(error).split())
            text = f"cannot be evaluated ({reason}): define what it names, or give the vault's password"
            self.broken.append(Problem(host, name, "", text))
            return None

    def path(self, host: str, name: str) -> pathlib.Path | None:
        """Return the file of this name: absolute, below the directory of the run, or beside the inventory."""
        self.read(host)
        found = (directory / pathlib.Path(name).expanduser() for directory in self._directories[host])
        return next((path for path in found if path.is_file()), None)


def _filtered(name: str, text: str) -> Any:
    """Return what a filter of another collection makes of the text, or None where it cannot."""
    try:
        plugin = filter_loader.get(name)
        return plugin.j2_function(text) if plugin else None
    except (AnsibleError, KeyError):
        return None


@functools.cache
def _json(path: pathlib.Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, Mapping) else None


@functools.cache
def specs() -> dict[str, Mapping[str, Any]]:
    """Return the variables of the collection and the options of all roles, by variable."""
    found: dict[str, Mapping[str, Any]] = dict(_yaml(_COLLECTION / "meta" / "collection_variables.yml"))
    for path in sorted(_COLLECTION.glob("roles/*/meta/argument_specs.yml")):
        found |= _yaml(path)["argument_specs"]["main"]["options"]
    return found


def _yaml(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
