# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads golden prompts: what is asked, and what is expected of the answer. All that is wrong is told at once.

Errors name the prompt, the key and the mend. They never show the text of a prompt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._gate.completion import Question
from ansible_collections.llmops.vllm.plugins.module_utils._gate.json_schema import schema_problems

KEYS = ("name", "prompt", "messages", "max_tokens", "expect")
EXPECTATIONS = ("contains", "regex", "json_schema", "length", "similarity")
MAX_PROMPTS = 1000
MAX_TOKENS = 4096
DEFAULT_TOKENS = 64
_TOLD = 20
_MEND = "give the parsed file, such as \"{{ lookup('ansible.builtin.file', 'golden.yml') | from_yaml }}\""


class GoldenError(LlmopsError):
    """Golden prompts that cannot be used, or a replica that did not answer them as expected."""


@dataclass(frozen=True)
class Expectation:
    """What is expected of an answer; what is empty or None is not."""

    contains: tuple[str, ...] = ()
    regex: tuple[re.Pattern[str], ...] = ()
    json_schema: Mapping[str, Any] | None = None
    shortest: int | None = None
    longest: int | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Prompt:
    """One golden prompt."""

    name: str
    question: Question
    expect: Expectation


def read_prompts(document: Any) -> list[Prompt]:
    """The prompts of a parsed file; GoldenError with everything that is wrong with it."""
    if not isinstance(document, list):
        raise GoldenError(f"prompts is {_kind(document)}, needed is a list of prompts: {_MEND}")
    if not 1 <= len(document) <= MAX_PROMPTS:
        raise GoldenError(f"prompts holds {len(document)} prompts: give 1 to {MAX_PROMPTS}")
    readers = [_Reader(number, entry) for number, entry in enumerate(document, 1)]
    prompts = [reader.prompt() for reader in readers]
    problems = [problem for reader in readers for problem in reader.problems]
    names = [prompt.name for prompt in prompts if prompt.name]
    problems += [
        f"prompt {name}: name: {names.count(name)} prompts have it: give each a name of its own"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    _raise(problems, "prompts")
    return prompts


def check_recorded(prompts: Iterable[Prompt], recorded: Any) -> None:
    """GoldenError when an answer that a prompt is compared with was not recorded, or is that of another question."""
    problems = []
    for prompt in prompts:
        if prompt.expect.similarity is None:
            continue
        entry = recorded.get(prompt.name)
        where = f"prompt {prompt.name}: expect.similarity:"
        if entry is None:
            problems.append(f"{where} no answer of it is recorded: record with state=recorded, and give the result")
        elif not isinstance(entry, Mapping) or not all(isinstance(entry.get(key), str) for key in ("text", "question")):
            problems.append(f"{where} its entry in recorded is damaged: give RETURN's recorded as it was")
        elif entry["question"] != prompt.question.digest():
            problems.append(f"{where} prompt or max_tokens were changed since its answer was recorded: record it anew")
    _raise(problems, "recorded")


def _raise(problems: Sequence[str], what: str) -> None:
    if problems:
        more = [f"... and {len(problems) - _TOLD} more"] if len(problems) > _TOLD else []
        counted = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise GoldenError("\n".join([f"{what}: {counted}, nothing was asked:", *problems[:_TOLD], *more]))


class _Reader:
    """Reads one entry and gathers what is wrong with it."""

    def __init__(self, number: int, entry: Any) -> None:
        self.problems: list[str] = []
        self._entry: Mapping[Any, Any] = entry if isinstance(entry, Mapping) else {}
        name = self._entry.get("name")
        self._name = name if isinstance(name, str) and name.strip() and len(name) <= 100 and name.isprintable() else ""
        self._title = self._name or f"{number} of the list"
        if not isinstance(entry, Mapping):
            self._wrong("", f"found {_kind(entry)}, needed is a mapping with the keys {', '.join(KEYS)}")

    def _wrong(self, key: str, text: str) -> None:
        self.problems.append(f"prompt {self._title}: {key}{': ' if key else ''}{text}")

    def prompt(self) -> Prompt:
        """The entry; not to be used when there are problems."""
        entry = self._entry
        if entry:
            self._unknown("", entry, KEYS)
            if not self._name:
                self._wrong("name", f"found {_kind(entry.get('name'))}, needed is a text of 1 to 100 characters")
            if ("prompt" in entry) == ("messages" in entry):
                self._wrong("prompt", "give either prompt (a text to go on with) or messages (a chat)")
        elif not self.problems:
            self._wrong("", f"is empty: give it the keys {', '.join(KEYS)}")
        question = Question(self._tokens(), self._text(), self._messages())
        return Prompt(self._name, question, self._expectation())

    def _unknown(self, where: str, given: Mapping[Any, Any], known: Sequence[str]) -> None:
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                mend = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
                self._wrong(f"{where}{str(key)[:40]}", f"is not known: {mend}")

    def _tokens(self) -> int:
        value = self._entry.get("max_tokens", DEFAULT_TOKENS)
        if _is_int(value) and 1 <= value <= MAX_TOKENS:
            return int(value)
        self._wrong("max_tokens", f"found {_kind(value)}, needed is a whole number from 1 to {MAX_TOKENS}")
        return DEFAULT_TOKENS

    def _text(self) -> str:
        value = self._entry.get("prompt", "x")
        if isinstance(value, str) and value:
            return value if "prompt" in self._entry else ""
        self._wrong("prompt", f"found {_kind(value)}, needed is a text: put it into quotes")
        return ""

    def _messages(self) -> tuple[Mapping[str, str], ...]:
        if "messages" not in self._entry:
            return ()
        value = self._entry["messages"]
        good = isinstance(value, list) and len(value) > 0
        for message in value if good else []:
            keys = isinstance(message, Mapping) and set(message) == {"role", "content"}
            good = good and keys and all(isinstance(text, str) and text for text in message.values())
        if not good:
            self._wrong("messages", "needed is a list of mappings with role and content, both texts that are not empty")
            return ()
        return tuple(dict(message) for message in value)

    def _expectation(self) -> Expectation:
        given = self._entry.get("expect")
        if not isinstance(given, Mapping) or not given:
            if self._entry:
                needed = f"needed is a mapping with at least one of {', '.join(EXPECTATIONS)}"
                self._wrong("expect", f"found {_kind(given)}, {needed}")
            return Expectation()
        self._unknown("expect.", given, EXPECTATIONS)
        shortest, longest = self._length(given)
        return Expectation(
            contains=self._texts("contains", given),
            regex=tuple(self._patterns(given)),
            json_schema=self._schema(given),
            shortest=shortest,
            longest=longest,
            similarity=self._similarity(given),
        )

    def _texts(self, key: str, given: Mapping[str, Any]) -> tuple[str, ...]:
        if key not in given:
            return ()
        values = given[key] if isinstance(given[key], list) else [given[key]]
        if values and all(isinstance(value, str) and value for value in values):
            return tuple(values)
        wrong = next((value for value in values if not (isinstance(value, str) and value)), values)
        self._wrong(f"expect.{key}", f"found {_kind(wrong)}, needed is a text or a list of them: put it into quotes")
        return ()

    def _patterns(self, given: Mapping[str, Any]) -> Iterable[re.Pattern[str]]:
        for text in self._texts("regex", given):
            try:
                yield re.compile(text)
            except (re.error, OverflowError, RecursionError) as problem:
                self._wrong("expect.regex", f"{text[:80]!r} is no regular expression of Python: {problem}")

    def _schema(self, given: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if "json_schema" not in given:
            return None
        problems = schema_problems(given["json_schema"], "expect.json_schema")
        self.problems += [f"prompt {self._title}: {problem}" for problem in problems]
        return None if problems else given["json_schema"]

    def _length(self, given: Mapping[str, Any]) -> tuple[int | None, int | None]:
        if "length" not in given:
            return None, None
        value = given["length"]
        if not isinstance(value, Mapping) or not value:
            self._wrong(
                "expect.length", f"found {_kind(value)}, needed is a mapping with min, max or both, in characters"
            )
            return None, None
        self._unknown("expect.length.", value, ("min", "max"))
        for key in ("min", "max"):
            if key in value and not (_is_int(value[key]) and value[key] >= 0):
                self._wrong(f"expect.length.{key}", f"found {_kind(value[key])}, needed is a number of characters")
                return None, None
        low, high = value.get("min"), value.get("max")
        if low is not None and high is not None and low > high:
            self._wrong("expect.length", f"min {low} is above max {high}: no answer can be so long")
        return low, high

    def _similarity(self, given: Mapping[str, Any]) -> float | None:
        if "similarity" not in given:
            return None
        value = given["similarity"]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
            return float(value)
        self._wrong("expect.similarity", f"found {_kind(value)}, needed is a number above 0 and up to 1, such as 0.8")
        return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    """What was found, without showing a text, which may be that of a prompt."""
    if value is None:
        return "nothing"
    if isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)[:40]
    if isinstance(value, str):
        return "a text" if value else "an empty text"
    what = "list" if isinstance(value, list) else "mapping" if isinstance(value, Mapping) else type(value).__name__
    return f"a {what}" if value else f"an empty {what}"
