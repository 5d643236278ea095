# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges flags by the catalogue of a vLLM version, without that vLLM and without any host: for the controller only.

The catalogue is one file a version, ``flags/<version>.json``, made by ``tools/flag_catalogue.py``. It knows what the
parser knows, and the limits of numbers. What only a model decides is judged on the host, by ``_vllm.probe``.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import LlmopsError
from . import probe
from .flag_history import REMOVED, SINCE

DIRECTORY = Path(__file__).parent / "flag_catalogues"

# Builds that vLLM itself publishes have the flags of the public version; any other label is somebody's own build.
PUBLISHED_LABEL = re.compile(r"cpu|cu\d+|rocm[\w.]*")

SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
BARE_SIZE = re.compile(r"\b(\d+(?:\.\d+)?)([kKmMgGtT])\b")
_TAKES = {
    "int": "a whole number",
    "float": "a number",
    "size": "a whole number or a size such as 8k (8000) or 8K (8192)",
    "json": "JSON",
    "object": "a mapping",
    "json_or_str": "a text or a mapping",
}


class FlagsError(LlmopsError):
    """There is no catalogue to judge by."""


@dataclass(frozen=True)
class Flag:
    """What a version's parser takes for one flag."""

    name: str
    kind: str  # as probe.Option.kind
    type: str  # of each value: bool, int, float, size, str, json (any), object (a JSON mapping), json_or_str
    default: Any = None  # null also where it depends on the machine or is no plain value
    since: str = ""  # first version that has it; empty: older than the history
    aliases: tuple[str, ...] = ()  # further spellings with their dashes, "-tp"
    choices: tuple[Any, ...] = ()  # empty: open
    keys: tuple[str, ...] = ()  # of a mapping; empty: open
    loose: bool = False  # whether choices may be written in any case, with '-' for '_'
    auto: bool = False  # whether a number may be the word auto
    none: bool = False  # whether the text None, or an empty one, means nothing
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def options(self) -> dict[str, probe.Option]:
        """Every spelling, as ``probe.options_of`` finds them in the parser."""
        spellings = [f"--{self.name}", *self.aliases, *([f"--no-{self.name}"] if self.kind == "pair" else [])]
        return dict.fromkeys(spellings, probe.Option(self.name, self.kind))


@dataclass(frozen=True)
class Catalogue:
    """The flags of one public version."""

    version: str
    made_from: str
    build: str
    flags: Mapping[str, Flag]
    options: Mapping[str, probe.Option]
    history: probe.History


def versions() -> list[str]:
    """The supported versions, those with a file, oldest first."""
    return list(_stored())


@functools.cache
def _stored() -> tuple[str, ...]:
    return tuple(sorted((file.stem for file in DIRECTORY.glob("*.json")), key=probe.release))


def why_not(version: str) -> str:
    """Why there is no catalogue of a version; empty when there is one."""
    public, _plus, label = str(version).partition("+")
    if label and not PUBLISHED_LABEL.fullmatch(label):
        return f"vLLM {version} is a build of its own ({label}): only its own parser knows its flags"
    if public not in _stored():
        return f"the flags of vLLM {version} are not catalogued: known are {', '.join(_stored())}"
    return ""


def catalogue(version: str) -> Catalogue | None:
    """The catalogue of a version or of a published build of it (``0.32.0+cu129``); None where ``why_not`` speaks."""
    return None if why_not(version) else _read(str(version).partition("+")[0])


@functools.cache
def _read(public: str) -> Catalogue:
    return from_document(json.loads((DIRECTORY / f"{public}.json").read_text(encoding="utf-8")))


def from_document(document: Mapping[str, Any]) -> Catalogue:
    """A catalogue as its file holds it."""
    flags = {name: from_entry(name, entry) for name, entry in document["flags"].items()}
    options = {spelling: option for flag in flags.values() for spelling, option in flag.options().items()}
    history = probe.History(REMOVED, SINCE)
    return Catalogue(document["version"], document["made_from"], document["build"], flags, options, history)


def from_entry(name: str, entry: Mapping[str, Any]) -> Flag:
    """A flag as its file holds it."""
    several = {key: tuple(entry[key]) for key in ("aliases", "choices", "keys") if key in entry}
    return Flag(name=name, **{**entry, **several})


def problems(flags: Mapping[str, Any], version: str) -> list[dict[str, Any]]:
    """What is wrong with flags (long names, either spelling) for a version; FlagsError where ``why_not`` speaks."""
    known = catalogue(version)
    if known is None:
        raise FlagsError(why_not(version))
    return judge(flags, known)


def judge(flags: Mapping[str, Any], known: Catalogue) -> list[dict[str, Any]]:
    """What is wrong with flags by a catalogue, in the shape of ``probe.error``."""
    errors, good = probe.check_keys(flags, known.options, known.version, known.history)
    for name, value in good.items():
        flag = known.flags[known.options["--" + name.partition(".")[0]].name]
        found = _value_problem(flag, name, value, known.version)
        if found:
            errors.append(found)
    return errors


def _value_problem(flag: Flag, name: str, value: Any, version: str) -> dict[str, Any] | None:
    base, dot, inner = name.partition(".")
    if dot:
        if flag.type in ("json", "object", "json_or_str"):
            return _key_problem(flag, name, value, [re.split(r"[.+]", inner)[0]], version)
        return probe.error(name, value, f"{name}: {base} takes no keys", f"write {base}")
    if isinstance(value, bool):  # check_keys lets it through only where it belongs
        return None
    for word in words_of(value):
        if flag.none and word in ("", "None"):
            continue
        try:
            taken = _convert(flag, word)
        except (ValueError, RecursionError):
            takes = _TAKES[flag.type] + (", or auto" if flag.auto else "")
            text = f"{name} takes {takes}, found {json.dumps(value, default=str)}"
            return probe.error(name, value, text, f"give {name} {takes}")
        found = _choice_problem(flag, name, value, taken) or _limit_problem(flag, name, value, taken)
        if flag.type == "object":
            found = _key_problem(flag, name, value, taken, version)
        if found:
            return found
    return None


def words_of(value: Any) -> list[str]:
    """The words that vLLM makes of a value in its configuration file."""
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    if isinstance(value, Mapping):
        return [json.dumps(value, default=str)]
    return [str(value)]


def _convert(flag: Flag, word: str) -> Any:
    """A word as the flag's type reads it; ValueError where it cannot."""
    if flag.auto and word.strip().lower() == "auto":
        return None
    if flag.type == "int":
        return int(word)
    if flag.type == "float":
        return float(word)
    if flag.type == "size":
        return size(word.strip())
    if flag.type == "json" or (flag.type == "json_or_str" and re.fullmatch(r"\s*\{.*\}\s*", word, re.DOTALL)):
        return json.loads(word)
    if flag.type == "object":
        parts = re.split(r'("(?:[^"\\]|\\.)*")', word)  # vLLM reads bare sizes in it
        parts[::2] = [BARE_SIZE.sub(lambda found: str(size(found.group())), part) for part in parts[::2]]
        mapping = json.loads("".join(parts))
        if not isinstance(mapping, dict):
            raise ValueError(word)
        return mapping
    return word.lower().replace("-", "_") if flag.loose else word


def size(text: str) -> int:
    """``8k`` is 8000, ``8K`` is 8192, ``1.5k`` is 1500; ValueError for what vLLM refuses."""
    found = SIZE.fullmatch(text)
    if not found:
        return int(text)
    number, unit = found.groups()
    power = "kmgt".index(unit.lower()) + 1
    return int(float(number) * 1000**power) if unit.islower() else int(number) * 1024**power


def _key_problem(flag: Flag, name: str, value: Any, keys: Iterable[str], version: str) -> dict[str, Any] | None:
    unknown = next((key for key in keys if flag.keys and key not in flag.keys), None)
    if unknown is None:
        return None
    close = difflib.get_close_matches(unknown.replace("-", "_"), flag.keys, n=2, cutoff=0.7)
    mend = f"write {' or '.join(close)}" if close else f"remove it: {flag.name} takes {', '.join(flag.keys)}"
    return probe.error(name, value, f"{unknown} is no key of {flag.name} in vLLM {version}", mend)


def _choice_problem(flag: Flag, name: str, value: Any, taken: Any) -> dict[str, Any] | None:
    if not flag.choices or taken is None or taken in flag.choices:
        return None
    # the words of argparse, so that the check on the host says the same
    listed = ", ".join(map(repr, flag.choices))
    return probe.finding(f"argument --{name}: invalid choice: {taken!r} (choose from {listed})", {name: value})


def _limit_problem(flag: Flag, name: str, value: Any, taken: Any) -> dict[str, Any] | None:
    if flag.type not in ("int", "float", "size") or taken is None:
        return None
    shown = json.dumps(value, default=str)
    limits = (
        (flag.at_least, lambda limit: taken >= limit, "{:g} or more", "raise"),
        (flag.above, lambda limit: taken > limit, "above {:g}", "raise"),
        (flag.at_most, lambda limit: taken <= limit, "{:g} or less", "lower"),
        (flag.below, lambda limit: taken < limit, "below {:g}", "lower"),
    )
    for limit, holds, words, deed in limits:
        if limit is not None and not holds(limit):
            text = f"{name} must be {words.format(limit)}, found {shown}"
            return probe.error(name, value, text, f"{deed} {name}, or leave it out")
    return None
