# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks one replica the golden prompts and judges its answers, or records them."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_ranges, check_seconds
from ansible_collections.llmops.vllm.plugins.module_utils._gate.completion import Answer, Outcome, ask_all
from ansible_collections.llmops.vllm.plugins.module_utils._gate.golden_file import GoldenError, Prompt
from ansible_collections.llmops.vllm.plugins.module_utils._gate.json_schema import mismatch, parse
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Replica, printable

REGEX_SECONDS = 2.0
_TOLD = 10
_SHOWN = 160


@dataclass(frozen=True)
class Limits:
    """What asking may cost."""

    parallel: int = 4
    request_timeout: float = 60.0
    timeout: float = 600.0

    def __post_init__(self) -> None:
        check_ranges(self, GoldenError, {"parallel": (1, 64)})
        check_seconds(self, GoldenError, ("request_timeout", "timeout"))


@dataclass(frozen=True)
class Failure:
    """An expectation that was not met; ``found`` and ``expected`` are shortened."""

    name: str
    expectation: str
    expected: str
    found: str

    def words(self) -> str:
        """In one line."""
        return f"{self.name}: {self.expectation}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Report:
    """What came of all prompts."""

    prompts: Sequence[Prompt]
    outcomes: Sequence[Outcome]
    failures: Sequence[Failure]
    recorded: Mapping[str, Any]
    elapsed: float

    @property
    def ok(self) -> bool:
        """Whether every expectation was met."""
        return not self.failures

    def words(self, url: str) -> str:
        """The verdict, with the first failures."""
        failed = {failure.name for failure in self.failures}
        if not failed:
            return f"{url}: all {len(self.prompts)} golden prompts were answered as expected"
        lines = [f"{url}: {len(failed)} of {len(self.prompts)} golden prompts failed:"]
        lines += [failure.words() for failure in self.failures[:_TOLD]]
        left = len(self.failures) - _TOLD
        return "\n".join(lines + ([f"... and {left} failures more"] if left > 0 else []))

    def result(self) -> dict[str, Any]:
        """As the module returns it; without the texts of prompts."""
        failed = {failure.name for failure in self.failures}
        return {
            "ok": self.ok,
            "asked": len(self.prompts),
            "passed": len(self.prompts) - len(failed),
            "failures": [asdict(failure) for failure in self.failures],
            "answers": [
                self._answer(prompt, outcome, prompt.name not in failed)
                for prompt, outcome in zip(self.prompts, self.outcomes)
            ],
            "elapsed": round(self.elapsed, 1),
        }

    def _answer(self, prompt: Prompt, outcome: Outcome, ok: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"name": prompt.name, "ok": ok}
        if isinstance(outcome, Answer):
            told.update(finish_reason=outcome.finish_reason, tokens=outcome.tokens, seconds=round(outcome.seconds, 3))
            if prompt.name in self.recorded:
                told["similarity"] = round(similarity(outcome.text, self.recorded[prompt.name]["text"]), 3)
        return told


def run(
    replica: Replica, model: str, prompts: Sequence[Prompt], recorded: Mapping[str, Any] | None, limits: Limits
) -> Report:
    """Asks all prompts and judges the answers; with ``recorded`` None, similarity is not judged."""
    began = time.monotonic()
    outcomes = ask_all(replica, model, [prompt.question for prompt in prompts], **asdict(limits))
    known = {
        prompt.name: recorded[prompt.name] for prompt in prompts if recorded and prompt.expect.similarity is not None
    }
    failures = [
        failure
        for prompt, outcome in zip(prompts, outcomes)
        for failure in judge(prompt, outcome, known.get(prompt.name, {}).get("text"))
    ]
    return Report(prompts, outcomes, failures, known, time.monotonic() - began)


def record(report: Report) -> dict[str, dict[str, str]]:
    """The answers, for ``recorded`` of a later run."""
    return {
        prompt.name: {"question": prompt.question.digest(), "text": outcome.text}
        for prompt, outcome in zip(report.prompts, report.outcomes)
        if isinstance(outcome, Answer)
    }


def judge(prompt: Prompt, outcome: Outcome, recorded: str | None) -> list[Failure]:
    """The expectations that an answer does not meet."""
    if isinstance(outcome, ApiError):
        return [Failure(prompt.name, "answer", "a whole answer", str(outcome))]
    return [Failure(prompt.name, *found) for found in _unmet(prompt, outcome.text, recorded)]


def _unmet(prompt: Prompt, text: str, recorded: str | None) -> Iterator[tuple[str, str, str]]:
    expect = prompt.expect
    for wanted in expect.contains:
        if wanted not in text:
            yield "contains", _quoted(wanted), _quoted(text)
    for pattern in expect.regex:
        try:
            with _at_most(REGEX_SECONDS):
                found = pattern.search(text)
        except _TooLong:
            hint = f"no end of the search within {REGEX_SECONDS:g} s: write it without nested repetition"
            yield "regex", _quoted(pattern.pattern), hint
            continue
        if not found:
            yield "regex", _quoted(pattern.pattern), _quoted(text)
    if expect.json_schema is not None:
        try:
            wrong = mismatch(parse(text.strip()), expect.json_schema)
        except ValueError as problem:
            wrong = f"no JSON ({problem})"
        if wrong:
            yield "json_schema", "JSON that fits the schema", f"{wrong}: {_quoted(text)}"
    if expect.shortest is not None and len(text) < expect.shortest:
        yield "length", f"at least {expect.shortest} characters", f"{len(text)}: {_quoted(text)}"
    if expect.longest is not None and len(text) > expect.longest:
        yield "length", f"at most {expect.longest} characters", f"{len(text)}: {_quoted(text)}"
    if expect.similarity is not None and recorded is not None:
        near = similarity(text, recorded)
        if near < expect.similarity:
            yield "similarity", f"at least {expect.similarity:g} to {_quoted(recorded)}", f"{near:.2f}: {_quoted(text)}"


def similarity(left: str, right: str) -> float:
    """The share of pieces of three characters that two texts have in common: 1 for the same text, 0 for none."""
    if left == right:
        return 1.0
    ours, theirs = (collections.Counter(_pieces(text)) for text in (left, right))
    return 2 * sum((ours & theirs).values()) / (sum(ours.values()) + sum(theirs.values()))


def _pieces(text: str) -> Iterator[tuple[str, str, str]]:
    text = f"\0\0{text}\0\0"  # so that a text of one character has pieces, too
    return zip(text, text[1:], text[2:])


def _quoted(text: str) -> str:
    shown = printable(text.encode("utf-8", "replace"), _SHOWN)
    return json.dumps(shown, ensure_ascii=False)


class _TooLong(Exception):
    pass


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Ends a search that would take for ever: an expression such as (a+)+$ can. In the main thread alone."""

    def over(*_unused: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
