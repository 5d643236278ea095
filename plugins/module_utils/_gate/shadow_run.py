# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a candidate and an old replica the same prompts, so few at a time that the old one's clients do not notice."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._bounds import check_ranges, check_seconds
from ansible_collections.llmops.vllm.plugins.module_utils._gate.comparison import Verdict
from ansible_collections.llmops.vllm.plugins.module_utils._gate.completion import (
    HOPELESS,
    Answer,
    Outcome,
    Question,
    ask,
)
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow import Limits, Pair, divergence, figures, judge
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow_mix import (
    Kind,
    ShadowError,
    clipped,
    draw,
    text_of,
)
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import (
    ApiError,
    Replica,
    model_and_revision,
    side_by_side,
)

_CHARACTERS = 4.0  # of a token, where the replica does not tell
_LONGEST = 4096  # tokens of a context, where the replica does not tell
_SAMPLE = 4000  # characters by which the tokenizer is measured
_WAIT = 0.5  # seconds until the old replica is looked at again


@dataclass(frozen=True)
class Bounds:
    """What the comparison may cost, each replica."""

    requests: int = 60
    ignore: int = 5
    parallel: int = 2
    max_prompt_tokens: int = 4096
    max_output_tokens: int = 256
    request_timeout: float = 60.0
    timeout: float = 300.0
    seed: int = 1

    def __post_init__(self) -> None:
        ranges = {"requests": (1, 1000), "ignore": (0, 100), "parallel": (1, 8)}
        ranges |= {"max_prompt_tokens": (1, 131072), "max_output_tokens": (1, 4096)}
        check_ranges(self, ShadowError, ranges)
        check_seconds(self, ShadowError, ("request_timeout", "timeout"))


@dataclass(frozen=True)
class Served:
    """What a replica serves, as far as it tells."""

    model: str
    revision: str
    root: str
    longest: int

    def same(self, other: Served) -> bool:
        """Whether both surely serve the same model."""
        if self.revision and other.revision:
            return self.revision == other.revision
        return bool(self.root) and self.root == other.root


@dataclass(frozen=True)
class Report:
    """What came of it."""

    pairs: Sequence[Pair]
    verdict: Verdict
    same_model: bool
    clipped: int
    held: float
    elapsed: float

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "verdict": self.verdict.verdict,
            "checks": self.verdict.result(),
            "pairs": len(self.pairs),
            "new": figures([pair.new for pair in self.pairs]),
            "old": figures([pair.old for pair in self.pairs]),
            "divergence": divergence(self.pairs),
            "same_model": self.same_model,
            "clipped": self.clipped,
            "held": round(self.held, 1),
            "elapsed": round(self.elapsed, 1),
        }


def run(new: Replica, old: Replica, model: str, mix: Sequence[Kind], bounds: Bounds, limits: Limits) -> Report:
    """Replays the mix to both; ShadowError when the old replica cannot be compared with."""
    began = time.monotonic()
    try:
        theirs, ours = served(old, model), served(new, model)
        per_token = characters(old, model)
    except ApiError as problem:
        raise ShadowError(f"nothing was compared: {problem}") from None
    kinds = draw(mix, bounds.ignore + bounds.requests, bounds.seed)
    longest = min(theirs.longest, ours.longest)
    asked = [clipped(kind, longest, bounds.max_prompt_tokens, bounds.max_output_tokens) for kind in kinds]
    questions = [
        Question(kind.output_tokens, text_of(max(1, int(kind.prompt_tokens * per_token)), bounds.seed * 1000 + number))
        for number, kind in enumerate(asked)
    ]
    replay = Replay(new, old, model, bounds, began + bounds.timeout)
    pairs = [(number, pair) for number, pair in enumerate(replay.pairs(questions)) if pair is not None]
    # the first are slow because caches are cold, but an error is one at any time
    known = [pair for number, pair in pairs if number >= bounds.ignore or not pair.whole]
    answered = sum(isinstance(pair.old, Answer) for pair in known)
    if known and not answered:
        raise ShadowError(f"nothing was compared, the old replica answered none of {len(known)}: {known[0].old}")
    same = ours.same(theirs)
    changed = sum(before != after for before, after in zip(kinds, asked))
    return Report(known, judge(known, same, limits), same, changed, replay.held, time.monotonic() - began)


class Replay:
    """Asks pair after pair: one replica after the other, each first in turn."""

    def __init__(self, new: Replica, old: Replica, model: str, bounds: Bounds, end: float) -> None:
        self._new, self._old, self._model, self._bounds, self._end = new, old, model, bounds, end
        self._over = False
        self.held = 0.0  # seconds for which the old replica's own clients went first

    def pairs(self, questions: Sequence[Question]) -> list[Pair | None]:
        """The outcomes; None for what was not asked of both in time."""
        tasks = [functools.partial(self._pair, number, question) for number, question in enumerate(questions)]
        return side_by_side(tasks, self._bounds.parallel)

    def _pair(self, number: int, question: Question) -> Pair | None:
        if not self._wait_for_clients():
            return None
        order = [self._old, self._new] if number % 2 else [self._new, self._old]
        outcomes: dict[int, Outcome] = {}
        for replica in order:
            left = self._end - time.monotonic()
            if left <= 0:
                return None
            try:
                outcomes[id(replica)] = ask(replica, self._model, question, min(left, self._bounds.request_timeout))
            except ApiError as problem:
                if problem.kind == "timeout" and self._end - time.monotonic() <= 0:
                    return None  # it was not the replica that took too long, but all of it
                if problem.kind == "refused" or problem.status in HOPELESS:
                    self._over = True
                outcomes[id(replica)] = problem
        return Pair(outcomes[id(self._new)], outcomes[id(self._old)])

    def _wait_for_clients(self) -> bool:
        """Until no request waits at the old replica; False when there is no time left, or no sense in asking."""
        while not self._over and time.monotonic() < self._end:
            # a replica that does not tell its load is asked all the same: that it fails is then seen and counted
            waiting = 0
            with contextlib.suppress(ApiError):
                waiting = self._old.load().waiting
            if not waiting:
                return True
            time.sleep(_WAIT)
            self.held += _WAIT
        return False


def served(replica: Replica, model: str) -> Served:
    """Model, revision and context length; ApiError when it does not list the model."""
    listed = replica.document("GET", "/v1/models").get("data")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    ids = [str(entry.get("id")) for entry in entries]
    if model not in ids:
        where = replica.where("GET", "/v1/models")
        raise ApiError(f"{where}: lists {', '.join(ids) or 'no model'}; {model} is missing", status=200)
    entry = entries[ids.index(model)]
    longest = entry.get("max_model_len")
    return Served(
        model=model,
        revision=model_and_revision([model, *(name for name in ids if name.startswith(f"{model}@"))])[1],
        root=str(entry.get("root") or ""),
        longest=longest if isinstance(longest, int) and longest > 0 else _LONGEST,
    )


def characters(replica: Replica, model: str) -> float:
    """Characters of one token of our prompts, by the replica's own tokenizer."""
    text = text_of(_SAMPLE, 0)
    with contextlib.suppress(ApiError):
        count = replica.document("POST", "/tokenize", {"model": model, "prompt": text}).get("count")
        if isinstance(count, int) and count > 0:
            return len(text) / count
    return _CHARACTERS
