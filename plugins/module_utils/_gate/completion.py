# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a replica greedy completions and times them: one, or many side by side within limits."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError, Replica, side_by_side

HOPELESS = (401, 403, 404)  # the key or the model: each further request would get the same answer


@dataclass(frozen=True)
class Question:
    """What is asked: a text to go on with, or the messages of a chat."""

    max_tokens: int
    prompt: str = field(default="", repr=False)
    messages: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    ignore_eos: bool = False

    @property
    def path(self) -> str:
        """Where it is asked."""
        return "/v1/chat/completions" if self.messages else "/v1/completions"

    def body(self) -> dict[str, Any]:
        """The body of the request, but for the model: greedy, so that the same model gives the same answer."""
        asked: dict[str, Any] = {"messages": list(self.messages)} if self.messages else {"prompt": self.prompt}
        limits = {"max_tokens": self.max_tokens, "temperature": 0, "seed": 0}
        return {**asked, **limits, **({"ignore_eos": True} if self.ignore_eos else {})}

    def digest(self) -> str:
        """Tells whether two questions are the same, without their text."""
        text = json.dumps(self.body(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """A whole answer; times in seconds since the question was sent."""

    text: str = field(repr=False)
    finish_reason: str
    tokens: int
    prompt_tokens: int
    ttft: float
    seconds: float

    @property
    def itl(self) -> float | None:
        """Mean seconds between two tokens, however many of them an event brought; None with a single token."""
        return (self.seconds - self.ttft) / (self.tokens - 1) if self.tokens > 1 else None


Outcome = Union[Answer, ApiError]


def ask(replica: Replica, model: str, question: Question, timeout: float) -> Answer:
    """One completion, streamed; ApiError unless it has tokens, a reason why it ended, and a proper end."""
    body = {"model": model, **question.body(), "stream": True, "stream_options": {"include_usage": True}}
    where = replica.where("POST", question.path)
    texts: list[str] = []
    times: list[float] = []
    finish = ""
    usage: Mapping[str, Any] = {}
    try:
        for seconds, event in replica.events(question.path, body, timeout):
            usage = event.get("usage") or usage
            for choice in event.get("choices") or []:
                text = str((choice["delta"].get("content") if question.messages else choice["text"]) or "")
                if text or choice.get("finish_reason"):
                    times.append(seconds)
                texts.append(text)
                finish = str(choice.get("finish_reason") or finish)
        tokens, prompt_tokens = int(usage.get("completion_tokens") or 0), int(usage.get("prompt_tokens") or 0)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ApiError(f"{where}: answered 200 with an event that is none of a completion", status=200) from None
    if tokens < 1 or not finish:
        what = "no token was generated" if tokens < 1 else "no finish_reason came"
        raise ApiError(f"{where}: answered 200, but {what}", status=200)
    return Answer("".join(texts), finish, tokens, prompt_tokens, times[0], times[-1])


def ask_all(
    replica: Replica,
    model: str,
    questions: Sequence[Question],
    *,
    parallel: int,
    request_timeout: float,
    timeout: float,
) -> list[Outcome]:
    """An answer or the reason why there is none, for each question in its order; ends within ``timeout`` seconds.

    When asking has become pointless (refused connection, key, model), the rest is not asked.
    """
    end = time.monotonic() + timeout
    hopeless: list[ApiError] = []

    def one(question: Question) -> Outcome:
        left = end - time.monotonic()
        if hopeless:
            return hopeless[0]
        if left <= 0:
            return ApiError(f"{replica.url}: not asked, the time limit of {timeout:g} s is over", kind="timeout")
        try:
            return ask(replica, model, question, min(left, request_timeout))
        except ApiError as problem:
            if problem.kind == "refused" or problem.status in HOPELESS:
                hopeless.append(problem)
            return problem

    return side_by_side([functools.partial(one, question) for question in questions], parallel)
