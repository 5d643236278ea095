# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stated part of JSON Schema, for hosts that have nothing but Python: see ``KEYWORDS``.

What is outside of it is refused by name, so that no expectation passes because nobody looked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
KEYWORDS = ("type", "enum", "properties", "required", "additionalProperties", "items", "minimum", "maximum")
ANNOTATIONS = ("title", "description")  # say nothing about the value
MAX_DEPTH = 32


def schema_problems(schema: Any, where: str = "json_schema", depth: int = 1) -> list[str]:
    """What is wrong with a schema, each with its place; empty when nothing is."""
    if isinstance(schema, bool) and depth > 1:
        return []
    if not isinstance(schema, Mapping):
        return [f"{where}: found {_shown(schema)}, needed is a mapping of keywords such as type and properties"]
    if depth > MAX_DEPTH:
        return [f"{where}: nests deeper than {MAX_DEPTH} levels: judge less of the answer"]
    allowed = ", ".join(KEYWORDS)
    found = [
        f"{where}: {key} is not among the keywords that are judged: use only {allowed}"
        for key in schema
        if key not in KEYWORDS and key not in ANNOTATIONS
    ]
    types = _types(schema)
    if "type" in schema and not (types and set(types) <= set(TYPES)):
        found.append(f"{where}.type: found {_shown(schema['type'])}, needed is one of {', '.join(TYPES)}, or a list")
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        found.append(f"{where}.enum: found {_shown(schema['enum'])}, needed is a list of values")
    required = schema.get("required", [])
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        found.append(f"{where}.required: found {_shown(required)}, needed is a list of names")
    for key in ("minimum", "maximum"):
        if key in schema and not _is_number(schema[key]):
            found.append(f"{where}.{key}: found {_shown(schema[key])}, needed is a number")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        found.append(f"{where}.properties: found {_shown(properties)}, needed is a mapping of names to schemas")
        properties = {}
    inner = [(f"{where}.properties.{name}", value) for name, value in properties.items()]
    inner += [(f"{where}.{key}", schema[key]) for key in ("items", "additionalProperties") if key in schema]
    for place, value in inner:
        found += schema_problems(value, place, depth + 1)
    return found


def mismatch(value: Any, schema: Any, where: str = "$") -> str:
    """The first place at which a value is not as the schema wants it, in words; empty when all is."""
    if isinstance(schema, bool):
        return "" if schema else f"{where}: must not be there"
    types = _types(schema)
    if types and not any(_is_a(value, name) for name in types):
        return f"{where}: is {_type_name(value)}, expected {' or '.join(types)}"
    if "enum" in schema and not any(_equal(value, wanted) for wanted in schema["enum"]):
        return f"{where}: is {_shown(value)}, expected one of {_shown(schema['enum'])}"
    if _is_number(value):
        if "minimum" in schema and value < schema["minimum"]:
            return f"{where}: is {_shown(value)}, expected at least {schema['minimum']}"
        if "maximum" in schema and value > schema["maximum"]:
            return f"{where}: is {_shown(value)}, expected at most {schema['maximum']}"
    if isinstance(value, Mapping):
        return _mismatch_of_object(value, schema, where)
    if isinstance(value, list) and "items" in schema:
        return _first(mismatch(item, schema["items"], f"{where}[{number}]") for number, item in enumerate(value))
    return ""


def _mismatch_of_object(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> str:
    missing = [name for name in schema.get("required", []) if name not in value]
    if missing:
        return f"{where}: {missing[0]} is missing"
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    return _first(mismatch(item, properties.get(name, others), f"{where}.{name}") for name, item in value.items())


def parse(text: str) -> Any:
    """The value of a JSON text; ValueError in words when it is none."""

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")

    try:
        return json.loads(text, parse_constant=no_constant)
    except json.JSONDecodeError as problem:
        raise ValueError(f"{problem.msg} at character {problem.pos + 1}") from None
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _first(texts: Any) -> str:
    return next(filter(None, texts), "")


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    given = schema.get("type", [])
    names = given if isinstance(given, list) else [given]
    return names if all(isinstance(name, str) for name in names) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_a(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return _is_number(value) and (whole or name == "number")
    return _type_name(value) == name


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if _is_number(value):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _equal(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1, 1 is 1.0."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    return _type_name(left) == _type_name(right) and bool(left == right)


def _shown(value: Any, limit: int = 80) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[:limit] + " ..."
