# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release of a replica means: parsed settings, the id that is their digest, the texts of its files, its diff."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._check.problem import is_secret
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.exposition import text as exposition
from ansible_collections.llmops.vllm.plugins.module_utils._systemd import HIDDEN

RELEASE_VARIABLE = "LLMOPS_RELEASE"
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
INFO = "llmops_release_info"
_INFO_HELP = "What the replica serves, since its process began."
SECRET_FLAGS = ("api-key", "hf-token", "ssl-keyfile-password")
SECRET_VARIABLES = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class ReleaseError(LlmopsError):
    """A release that cannot be made or activated."""


def flag_name(key: str) -> str:
    """``max_num_seqs`` -> ``max-num-seqs``: vLLM drops ``enable_x: false`` silently, ``enable-x: false`` it heeds."""
    base, dot, rest = str(key).partition(".")
    return base.replace("_", "-") + dot + rest


def parsed_settings(settings: Mapping[str, Any], where: str = "settings") -> dict[str, Any]:
    """Settings under their long names with dashes, in order; refuses what vLLM would misread."""
    parsed: dict[str, Any] = {}
    for key, value in settings.items():
        name = flag_name(key)
        if name in parsed:
            raise ReleaseError(f"{where} has {name} twice, once with '-' and once with '_': give it once")
        if value is None:
            raise ReleaseError(f"{where}.{key} is null, which vLLM reads as the text 'None': leave {name} out")
        if name in SECRET_FLAGS:
            raise ReleaseError(f"{where} holds {name}: give it in secrets, so that no diff and no log shows it")
        parsed[name] = value
    return dict(sorted(parsed.items()))


def parsed_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables as text; true is 1 and false is 0."""
    parsed: dict[str, str] = {}
    for name, value in environment.items():
        if not VARIABLE.match(str(name)):
            raise ReleaseError(f"environment has the name {name!r}: use letters, digits and _")
        if name in SECRET_VARIABLES:
            raise ReleaseError(
                f"environment holds {name}, which a diff would show: give api-key or hf-token in secrets"
            )
        if value is None or isinstance(value, (dict, list)):
            raise ReleaseError(f"environment.{name} is {json.dumps(value)}: give a text or a number")
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if any(ord(character) < 32 and character != "\t" for character in text):
            raise ReleaseError(f"environment.{name} holds a line break or another control character: remove it")
        parsed[str(name)] = text
    return dict(sorted(parsed.items()))


def _meaning(value: Any) -> Any:
    """Numbers and their text are the same on a command line."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return str(value)


def _unit_meaning(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and line[0] not in "#;"]


def secret_values(secrets: Mapping[str, Any]) -> dict[str, list[str]]:
    """Secrets as lists of text, under the long flag names."""
    parsed = {}
    for key, value in sorted(secrets.items()):
        values = [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]
        if any(not item for item in values):
            raise ReleaseError(f"secrets.{key} holds an empty text: give a secret or leave it out")
        if values:
            parsed[flag_name(key)] = values
    return parsed


def fingerprint(secrets: Mapping[str, list[str]]) -> str:
    """Tells whether secrets changed, and nothing else about them."""
    if not secrets:
        return ""
    key = next(iter(secrets.values()))[0].encode()
    return hmac.new(key, json.dumps(secrets, sort_keys=True).encode(), hashlib.sha256).hexdigest()[:8]


@dataclass(frozen=True)
class Release:
    """Everything that decides how a replica runs."""

    env: str
    model: str
    model_name: str
    model_revision: str
    version: str
    settings: dict[str, Any]
    environment: dict[str, str]
    unit: str
    secrets: dict[str, list[str]] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        """A digest of the meaning: order and spelling of names, comments and blank lines do not count."""
        meaning = {
            "version": self.version,
            "env": os.path.basename(self.env.rstrip("/")),  # noqa: PTH119
            "model_name": self.model_name,
            "model_revision": self.model_revision,
            "model": self.model,
            "settings": {name: _meaning(value) for name, value in self.settings.items()},
            "environment": self.environment,
            "unit": _unit_meaning(self.unit),
            "secrets": fingerprint(self.secrets),
        }
        text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def files(self) -> dict[str, str]:
        """Name and text of every file of the release directory."""
        document = {
            "id": self.id,
            "version": self.version,
            "env": self.env,
            "model": self.model,
            "model_name": self.model_name,
            "model_revision": self.model_revision,
            "settings": self.settings,
            "environment": self.environment,
            "secrets": {name: len(values) for name, values in self.secrets.items()},
            "fingerprint": fingerprint(self.secrets),
        }
        variables = {**self.environment, RELEASE_VARIABLE: self.id}
        return {
            "config.yaml": config_text({**self.settings, **self.secrets}),
            "environment": "".join(f"{name}={systemd_quote(value)}\n" for name, value in sorted(variables.items())),
            "unit.conf": self.unit if self.unit.endswith("\n") or not self.unit else self.unit + "\n",
            "release.json": json.dumps(document, indent=2, sort_keys=True) + "\n",
        }

    def metrics(self, replica: str) -> str:
        """What a replica of this name serves, for the node exporter of its host; its scrape tells the host."""
        labels = {"name": replica, "release": self.id, "model": self.model_name, "model_version": self.model_revision}
        return exposition({INFO: _INFO_HELP}, [(INFO, {**labels, "vllm_version": self.version}, 1)])

    def view(self) -> dict[str, str]:
        """The release for a diff: secrets only as a count and a fingerprint."""
        return view_of(json.loads(self.files()["release.json"]), self.files()["unit.conf"])


def release_from(params: Mapping[str, Any]) -> Release:
    """The release that the module's parameters describe."""
    for name in ("env", "model"):
        if not str(params[name] or "").startswith("/"):
            raise ReleaseError(f"{name} is {params[name]!r}: give the absolute path of a directory")
    settings = parsed_settings(params["settings"])
    secrets = secret_values(params["secrets"] or {})
    both = sorted(settings.keys() & secrets.keys())
    if both:
        raise ReleaseError(f"{', '.join(both)} stands in settings and in secrets: give it in secrets alone")
    return Release(
        env=params["env"].rstrip("/"),
        model=params["model"].rstrip("/"),
        model_name=params["model_name"] or "",
        model_revision=params["model_revision"] or "",
        version=params["version"] or "",
        settings=settings,
        environment=parsed_environment(params["environment"] or {}),
        unit=params["unit"] or "",
        secrets=secrets,
    )


# --- texts -------------------------------------------------------------------------------------------------------


def yaml_value(value: Any) -> str:
    """A value as one line of YAML: JSON with the differences that matter to YAML 1.1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ReleaseError(f"settings hold the number {value}: give a finite one")
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_quote(str(name))}: {yaml_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    return "null" if value is None else yaml_quote(str(value))


def yaml_quote(text: str) -> str:
    """A double-quoted YAML text."""
    parts = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            parts.append("\\" + character)
        elif 32 <= code < 127 or (code > 160 and character.isprintable() and code not in (0xFEFF, 0x2028, 0x2029)):
            parts.append(character)
        else:
            parts.append(f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}")
    return '"' + "".join(parts) + '"'


def config_text(settings: Mapping[str, Any]) -> str:
    """``config.yaml``: one flag a line, texts always quoted."""
    lines = [f"{name}: {yaml_value(value)}" for name, value in sorted(settings.items())]
    return "# Made by llmops.vllm.vllm_release: do not edit, change the inventory.\n" + "\n".join(lines) + "\n"


def systemd_quote(value: str) -> str:
    """A value for systemd's EnvironmentFile."""
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def _shown(name: str, value: str) -> str:
    """A variable for a diff: a secret as what tells whether it changed."""
    return f"{HIDDEN} ({fingerprint({name: [value]})})" if is_secret(name) else value


def view_of(document: Mapping[str, Any], unit: str) -> dict[str, str]:
    """Texts for a diff, without secrets."""
    settings = dict(document.get("settings") or {})
    for name, count in (document.get("secrets") or {}).items():
        settings[name] = [HIDDEN] * count
    identity = {name: document.get(name, "") for name in ("version", "env", "model", "model_name", "model_revision")}
    identity["secrets-fingerprint"] = document.get("fingerprint", "")
    environment = {name: _shown(name, value) for name, value in (document.get("environment") or {}).items()}
    return {
        "release": "".join(f"{name}: {value}\n" for name, value in identity.items()),
        "config.yaml": "".join(f"{name}: {yaml_value(value)}\n" for name, value in sorted(settings.items())),
        "environment": "".join(f"{name}={systemd_quote(value)}\n" for name, value in sorted(environment.items())),
        "unit.conf": unit,
    }


def diff_of(
    before: Mapping[str, str], after: Mapping[str, str], replica: str, ids: tuple[str, str]
) -> list[dict[str, str]]:
    """Ansible's diff of two views; only the parts that differ."""
    return [
        {
            "before_header": f"{replica} {name} ({ids[0] or 'none'})",
            "after_header": f"{replica} {name} ({ids[1] or 'none'})",
            "before": before.get(name, ""),
            "after": after.get(name, ""),
        }
        for name in ("release", "config.yaml", "environment", "unit.conf")
        if before.get(name, "") != after.get(name, "")
    ]


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str]]:
    """What a new release changes, value by value."""
    found = []
    for part, separator in (("release", ": "), ("config.yaml", ": "), ("environment", "=")):
        old, new = (
            dict(line.split(separator, 1) for line in view.get(part, "").splitlines()) for view in (before, after)
        )
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                found.append({"name": name, "before": old.get(name, ""), "after": new.get(name, "")})
    if before.get("unit.conf", "") != after.get("unit.conf", ""):
        found.append({"name": "unit.conf", "before": "", "after": "changed"})
    return found
