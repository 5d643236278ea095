# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables that the collection knows, for plugins that run on the controller."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

_COLLECTION = pathlib.Path(__file__).resolve().parents[2]


@functools.cache
def specs() -> dict[str, Mapping[str, Any]]:
    """Return the variables of the whole collection and the options of all roles, by variable."""
    found: dict[str, Mapping[str, Any]] = dict(_yaml(_COLLECTION / "meta" / "collection_variables.yml"))
    for path in sorted(_COLLECTION.glob("roles/*/meta/argument_specs.yml")):
        found |= _yaml(path)["argument_specs"]["main"]["options"]
    return found


def _yaml(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
