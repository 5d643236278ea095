# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks an inventory on the controller: an action, because it reads the variables of all hosts and connects to none.

Keys reach it as variables and never as arguments of a module. The logic is in ``module_utils/_check/fleet.py``.
"""

from __future__ import annotations

import datetime
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar
from ansible.utils.vars import load_extra_vars
from ansible.vars.plugins import get_vars_from_inventory_sources
from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check
from ansible_collections.llmops.vllm.plugins.module_utils._check import variables as check_variables
from ansible_collections.llmops.vllm.plugins.module_utils._check.problem import Problem
from ansible_collections.llmops.vllm.plugins.module_utils._check.report import first_and_more
from ansible_collections.llmops.vllm.plugins.plugin_utils._specs import specs

# Where a host's own variables and ours meet: all that the judges look at.
_READ = (*check_variables.PREFIXES, "ansible_host")
_GROUPS = ("server_group", "balancer_group", "monitor_group")
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
        variables = task_vars or {}
        groups = variables["groups"]
        named = {name: str(arguments[name]) for name in _GROUPS}
        self._hosts = _Hosts(variables["hostvars"], self._loader)
        inventory = fleet_check.Inventory(
            {host: self._hosts.read(host) for group in named.values() for host in groups.get(group, [])},
            groups,
            **named,
            specs=specs(),
            pool_groups=self._hosts.groups_that_set("llmops_pool"),
            certificate=functools.lru_cache(maxsize=None)(self._certificate),
            model_config=self._model_config,
        )
        broken = [*self._group_names(), *self._hosts.broken]
        now = datetime.datetime.now(datetime.timezone.utc)
        report = fleet_check.check(inventory, now, arguments["min_days"], broken, self._hosts.not_checked)
        if not (report.ok and arguments["quiet"]):
            for line in report.lines():
                self._display.display(line)
        return {**result, "changed": False, "ok": report.ok, "report": report.as_dict(), "msg": report.lines()[0]}

    def _group_names(self) -> Iterable[Problem]:
        """A play finds its hosts before it knows variables of any: the inventory cannot name its groups."""
        given = load_extra_vars(self._loader)
        for name in (f"llmops_{group}" for group in _GROUPS):
            found = sorted(self._hosts.raw_values(name)) if name not in given else []
            if found:
                text = (
                    f"is set in the inventory ({', '.join(found)}), where a play does not see it when it looks for its "
                    f"hosts: remove it there, and give -e {name}={found[0]}"
                )
                yield Problem("", name, ", ".join(found), text)

    def _certificate(self, host: str) -> dict[str, Any]:
        """Return the PEM texts that are at hand, and what community.crypto tells of them."""
        variables, found = self._hosts.read(host), {}
        readers = (
            ("certificate", "certificate_pem", "certificate", "x509_certificate_info"),
            ("key", "key_pem", "private_key", "openssl_privatekey_info"),
        )
        for what, pem, facts, reader in readers:
            text = self._text(host, variables.get(f"llm_balancer_tls_{what}"))
            if text is not None:
                found[pem] = text
                try:
                    found[facts] = _filter(f"community.crypto.{reader}")(text)
                except Exception as error:  # whatever the filter of another collection meets
                    found["unread"] = f"{reader} of community.crypto cannot read them ({type(error).__name__})"
        return found

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
    """Evaluated variables by host; what could not be evaluated is in ``broken`` or ``not_checked``."""

    def __init__(self, hostvars: Any, loader: Any) -> None:
        self._hostvars, self._loader = hostvars, loader
        self._raw = functools.lru_cache(maxsize=None)(hostvars.raw_get)  # each call merges all that a host inherits
        self._read: dict[str, dict[str, Any]] = {}
        self._directories: dict[str, list[pathlib.Path]] = {}
        self.broken: list[Problem] = []
        self._from_facts: dict[str, list[str]] = {}

    def read(self, host: str) -> dict[str, Any]:
        """Return what the judges look at; null is absent, except where a role would refuse it."""
        if host not in self._read:
            raw = {**self._raw(host), "hostvars": self._hostvars}
            self._directories[host] = [pathlib.Path.cwd(), pathlib.Path(raw.get("inventory_dir") or ".")]
            templar = Templar(loader=self._loader, variables=raw)
            values = {name: self._value(host, name, raw[name], templar) for name in raw if name.startswith(_READ)}
            given = {name: value for name, value in values.items() if value is not _BROKEN}
            self._read[host] = {
                name: value
                for name, value in given.items()
                if value is not None or (name in specs() and not name.startswith("llmops_"))
            }
        return self._read[host]

    def _value(self, host: str, name: str, raw: Any, templar: Templar) -> Any:
        try:
            return _plain(templar.template(raw))
        except Exception as error:  # a filter in it may raise anything
            if name not in specs() and name != "ansible_host":
                return _BROKEN  # the inventory's own
            if "ansible_facts" in str(raw) and name not in fleet_check.PLACING:
                self._from_facts.setdefault(name, []).append(host)
                return _BROKEN
            # What an error quotes may be a secret; that something is undefined is all that is needed.
            told = re.search(r"'[\w.]+' is undefined|has no attribute '\w+'", str(error))
            reason = told.group() if told else type(error).__name__
            text = f"cannot be evaluated ({reason}): define what it names, or give the vault's password"
            self.broken.append(Problem(host, name, "", text))
            return _BROKEN

    @property
    def not_checked(self) -> list[str]:
        """What only a host can tell."""
        return [
            f"{name} of {first_and_more(hosts)}: it follows from facts, which only the host knows"
            for name, hosts in self._from_facts.items()
        ]

    def raw_values(self, name: str) -> set[str]:
        """Return the values that hosts of the inventory have for a variable, as they were written."""
        found = (self._raw(host).get(name) for host in self._hostvars)
        return {str(value) for value in found if value is not None}

    def groups_that_set(self, name: str) -> list[str]:
        """Return the groups whose own variables hold this one, beside them or in group_vars."""
        inventory = self._hostvars._inventory

        def own(group: Any) -> dict[str, Any]:
            return {
                **group.get_vars(),
                **get_vars_from_inventory_sources(self._loader, inventory._sources, [group], "task"),
            }

        return [group.name for group in inventory.groups.values() if name in own(group)]

    def path(self, host: str, name: str) -> pathlib.Path | None:
        """Return the file of this name: absolute, below the directory of the run, or beside the inventory."""
        self.read(host)
        try:
            found = [directory / pathlib.Path(name).expanduser() for directory in self._directories[host]]
            return next((path for path in found if path.is_file()), None)
        except (OSError, RuntimeError, ValueError):  # a name that can be none, such as the text of a key
            return None


_BROKEN = object()


def _plain(value: Any) -> Any:
    """Return a value of plain types: vaulted and tagged texts become texts, dates too."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _filter(name: str) -> Any:
    plugin = filter_loader.get(name)
    if plugin is None:
        raise LookupError(name)
    return plugin.j2_function


@functools.cache
def _json(path: pathlib.Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, Mapping) else None
