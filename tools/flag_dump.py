"""Prints the parser of the vLLM beside it as JSON: run by that vLLM's own Python, with the path of ``_vllm/probe.py``.

Types are found by trying them: a flag that takes ``8k`` but not ``word`` takes sizes, whatever vLLM calls the function.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

# Annotations of pydantic and the names that the catalogue gives them.
_LIMITS = {"ge": "at_least", "le": "at_most", "gt": "above", "lt": "below"}
# Made only where the model or another flag asks for them: their limits do not hold everywhere.
_MAYBE_ABSENT = {"LoRAConfig", "MultiModalConfig"}


def load_probe(path: str) -> Any:
    """The probe as a module, from its file alone."""
    spec = importlib.util.spec_from_file_location("_vllm_probe", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def takes(convert: Any, text: str) -> bool:
    """Whether a type function accepts a text."""
    try:
        convert(text)
    except Exception:  # argparse, json and pydantic each raise their own
        return False
    return True


def type_word(convert: Any) -> str:
    """The catalogue's word for a type function."""
    if takes(convert, "word"):
        return "json_or_str" if takes(convert, '{"a": 1}') and not takes(convert, "{a}") else "str"
    if not takes(convert, "3"):
        return "object"
    if takes(convert, "[]"):
        return "json"
    if takes(convert, "1.5"):
        return "float"
    return "size" if takes(convert, "8k") else "int"


def plain_default(value: Any) -> Any:
    """A default as JSON can hold it; None for objects, for suppressed ones and for paths of this machine."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        items = [plain_default(item) for item in value]
        return None if None in items else items
    if value == {} or value is None or isinstance(value, (bool, int, float)):
        return value
    return value if isinstance(value, str) and not value.startswith(("/", "~", "==")) else None


def keys_of(convert: Any) -> list[str]:
    """The keys of the configuration class behind a type function; empty where it takes others too."""
    if "unexpected_keyword" not in refusal(convert, "no_such_key"):
        return []
    names = {field.name for cls in classes_in(convert) for field in dataclasses.fields(cls)}
    return sorted(name for name in names if "unexpected_keyword" not in refusal(convert, name))


def refusal(convert: Any, key: str) -> str:
    """What a type function says to a mapping with this key; empty where it takes it."""
    try:
        convert(json.dumps({key: None}))
    except Exception as problem:
        return str(problem)
    return ""


def classes_in(function: Any) -> list[type]:
    """Dataclasses that a function, or one that it wraps, holds as a default or in its closure."""
    held = [*(getattr(function, "__defaults__", None) or ())]
    held += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    wrapped = [cls for thing in held if inspect.isfunction(thing) for cls in classes_in(thing)]
    return [thing for thing in held if inspect.isclass(thing) and dataclasses.is_dataclass(thing)] + wrapped


def entry(action: Any) -> dict[str, Any]:
    """What the parser knows about one flag."""
    if action.nargs == 0:
        return {"type": "bool", "default": plain_default(action.default)}
    convert = action.type or str
    found: dict[str, Any] = {"type": type_word(convert), "default": plain_default(action.default)}
    optional = takes(convert, "None") and convert("None") is None
    # up to 0.30 an optional choice lists the text None, which the parser then refuses because it reads it as nothing
    nothing = (None, "None") if optional else (None,)
    choices = sorted(choice for choice in action.choices or () if choice not in nothing)
    if choices:
        found["choices"] = choices
        texts = [choice for choice in choices if isinstance(choice, str)]
        if texts and all(_same(convert, text) for text in texts) and not _same(str, texts[0]):
            found["loose"] = True
    if optional and (not choices or None in action.choices):
        found["none"] = True
    keys = keys_of(convert) if found["type"] == "object" else []
    if keys:
        found["keys"] = keys
    if takes(convert, "auto") and not takes(convert, "word"):
        found["auto"] = True
    return found


def _same(convert: Any, choice: str) -> bool:
    written = choice.upper().replace("_", "-")
    return takes(convert, written) and convert(written) == choice


def limits() -> dict[str, dict[str, float]]:
    """The limits of numbers, by flag, as vLLM's configuration classes declare them; the widest where they differ."""
    try:
        config = importlib.import_module("vllm.config")
    except ModuleNotFoundError:
        return {}
    classes = [
        thing for _unused, thing in inspect.getmembers(config, inspect.isclass) if dataclasses.is_dataclass(thing)
    ]
    found: dict[str, dict[str, list[float]]] = {}
    classes = [cls for cls in classes if cls.__name__ not in _MAYBE_ABSENT]
    for name, field in (pair for cls in classes for pair in getattr(cls, "__pydantic_fields__", {}).items()):
        declared = {
            word: getattr(note, mark)
            for note in field.metadata
            for mark, word in _LIMITS.items()
            if getattr(note, mark, None) is not None
        }
        for word, limit in declared.items():
            found.setdefault(name.replace("_", "-"), {}).setdefault(word, []).append(limit)
    widest = {"at_least": min, "above": min, "at_most": max, "below": max}
    return {flag: {word: widest[word](every) for word, every in bounds.items()} for flag, bounds in found.items()}


def describe(probe: Any) -> dict[str, Any]:
    """Version with its label, Python and flags of the vLLM that this Python imports."""
    parser = probe.find("make_arg_parser")(probe.find("FlexibleArgumentParser")())
    bounds = limits()
    flags: dict[str, dict[str, Any]] = {}
    for spelling, option in probe.options_of(parser).items():
        if option.name == "help":
            continue
        if option.name not in flags:
            flags[option.name] = {"kind": option.kind, **entry(parser._option_string_actions[spelling])}
            if flags[option.name]["type"] in ("int", "float", "size"):
                flags[option.name].update(bounds.get(option.name, {}))
        implied = {f"--{option.name}"} | ({f"--no-{option.name}"} if option.kind == "pair" else set())
        if spelling not in implied:
            flags[option.name].setdefault("aliases", []).append(spelling)
    # the metadata, unlike vllm.__version__, says which build it is
    version = importlib.metadata.version("vllm")
    return {"version": version, "python": platform.python_version(), "flags": flags}


def main() -> int:
    """Print the description; what vLLM prints while it is imported goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    described: Mapping[str, Any] = describe(load_probe(sys.argv[1]))
    answers.write(json.dumps(described, sort_keys=True))
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
