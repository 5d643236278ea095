# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load that measures a profile, one recipe for each, with the reason for its figures.

Load is given for one replica and grows with their number, so that a pool of three and a pool of four tell the same of a
replica. Lengths are fixed: what differs between two runs is then the server, and no luck with long answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .._errors import LlmopsError
from .._monitoring import limits as _limits

MAX_REQUESTS = 20000  # of a run: it is load on what serves clients
MAX_CONCURRENCY = 4096
SLO = ("ttft", "tpot", "e2el")  # what vllm bench counts a request as good by
_LEAST = {"input_tokens": 1, "output_tokens": 2, "shared_tokens": 0, "conversations": 0, "requests": 1, "warmups": 0}


class RecipeError(LlmopsError):
    """A recipe that measures nothing, or more than is allowed."""


@dataclass(frozen=True)
class Recipe:
    """A load: what is asked, how it arrives, and which answers count as good."""

    name: str
    why: str
    input_tokens: int  # of a prompt, the shared ones included
    output_tokens: int  # of each answer
    requests: int  # for each replica
    concurrency: int = 0  # requests in flight for each replica at most; 0: no bound
    request_rate: float = 0.0  # a second and replica; 0: the next one begins when one ends
    burstiness: float = 1.0  # of arrivals: 1 is a Poisson process, less is burstier; without a rate it means nothing
    shared_tokens: int = 0  # first tokens of a prompt that others begin with, too
    conversations: int = 0  # different beginnings, for each replica
    warmups: int = 8  # requests before it counts, for each replica
    goodput_ms: Mapping[str, float] | None = None  # an answer counts as good within all of these; none: nobody waits

    def data(self) -> dict[str, Any]:
        """All of it but the words."""
        return {name: value for name, value in asdict(self).items() if name != "why"}

    def digest(self) -> str:
        """Tells whether two runs did the same."""
        return hashlib.sha256(json.dumps(self.data(), sort_keys=True).encode()).hexdigest()[:12]

    def changed(self, given: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some figures replaced; RecipeError names the first that cannot be."""
        known = {one.name for one in fields(self)} - {"name", "why"}
        for name in given:
            if name not in known:
                raise RecipeError(f"recipe.{name} is unknown: a recipe has {', '.join(sorted(known))}")
        values = {name: _number(name, value) for name, value in given.items() if name != "goodput_ms"}
        if "goodput_ms" in given:
            values["goodput_ms"] = _goodput(given["goodput_ms"])
        new = replace(self, **values)
        new.check()
        return new

    def check(self) -> None:
        """RecipeError unless the figures fit each other."""
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise RecipeError(f"recipe.{name} is {getattr(self, name)}: give {least} or more")
        if not self.concurrency and not self.request_rate:
            raise RecipeError("recipe.concurrency and recipe.request_rate are 0: all requests would come at once")
        if bool(self.shared_tokens) != bool(self.conversations) or self.shared_tokens >= self.input_tokens:
            raise RecipeError(
                f"recipe.shared_tokens is {self.shared_tokens}, conversations {self.conversations}, input_tokens "
                f"{self.input_tokens}: give both or neither, and less shared than input"
            )
        if self.conversations and self.requests % self.conversations:
            raise RecipeError(
                f"recipe.requests is {self.requests}: give a multiple of the {self.conversations} conversations, or "
                "vllm bench asks fewer"
            )
        if self.burstiness <= 0:
            raise RecipeError(f"recipe.burstiness is {self.burstiness:g}: give a number above 0")

    def load(self, replicas: int) -> Recipe:
        """Return the load for so many replicas; RecipeError when it is more than a run may be."""
        if replicas < 1:
            raise RecipeError(f"replicas is {replicas}: give 1 or more")
        whole = replace(
            self,
            **{name: getattr(self, name) * replicas for name in _PER_REPLICA},
        )
        if whole.requests > MAX_REQUESTS or whole.concurrency > MAX_CONCURRENCY:
            raise RecipeError(
                f"{whole.requests} requests, {whole.concurrency} at a time, for {replicas} replicas: at most "
                f"{MAX_REQUESTS} and {MAX_CONCURRENCY} are made by one client; lower recipe.requests or "
                "recipe.concurrency"
            )
        return whole


_PER_REPLICA = ("requests", "concurrency", "request_rate", "conversations", "warmups")


def _number(name: str, value: Any) -> Any:
    wanted: type = float if name in ("request_rate", "burstiness") else int
    try:
        number = wanted(str(value).strip())
    except ValueError:
        raise RecipeError(f"recipe.{name} is {value!r}: give a number") from None
    # inf would pass as a rate, and all requests would come at once
    if not 0 <= number < 1e9:
        raise RecipeError(f"recipe.{name} is {value!r}: give a number from 0")
    return number


def _goodput(given: Any) -> dict[str, float] | None:
    if not given:
        return None
    if not isinstance(given, Mapping) or set(given) - set(SLO):
        raise RecipeError(f"recipe.goodput_ms is {given!r}: give milliseconds for some of {', '.join(SLO)}")
    return {name: float(_number_ms(name, given[name])) for name in SLO if name in given}


def _number_ms(name: str, value: Any) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise RecipeError(f"recipe.goodput_ms.{name} is {value!r}: give milliseconds above 0")
    return number


def _watched(profile: str) -> dict[str, float]:
    """What alerts call slow is not good here either."""
    limits = _limits.limits({}, "", profile)
    return {"ttft": limits["ttft_p99_seconds"] * 1000.0, "tpot": limits["itl_p99_seconds"] * 1000.0}


RECIPES: dict[str, Recipe] = {
    recipe.name: replace(recipe, goodput_ms=_watched(recipe.name))
    for recipe in (
        Recipe(
            "baseline",
            "A prompt with some context and an answer of a page: 2048 and 512 tokens are also what published tables "
            "for vLLM use, so there is something to look beside. 16 at a time keep a GPU busy without a queue.",
            input_tokens=2048,
            output_tokens=512,
            requests=160,
            concurrency=16,
        ),
        Recipe(
            "long_context",
            "24,000 tokens are a report or some source files. Four at a time, since the time to the first token is "
            "prefill, and more at a time would measure the queue. 40 requests, because each of them is long: enough "
            "for a median, and for no more.",
            input_tokens=24000,
            output_tokens=512,
            requests=40,
            concurrency=4,
            warmups=2,
        ),
        Recipe(
            "multi_turn",
            "Turns of 20 conversations, each with 2048 tokens of history and 128 new ones, in random order: nine of "
            "ten find their history in the prefix cache, if it holds 20 of them and a conversation comes back to the "
            "same replica. They arrive in bursts (0.7), as people do. Where the cache does not work, the time to the "
            "first token grows several times, which is what this is to show.",
            input_tokens=2176,
            output_tokens=256,
            requests=200,
            request_rate=2.0,
            burstiness=0.7,
            shared_tokens=2048,
            conversations=20,
        ),
        Recipe(
            "streaming",
            "Short prompts that arrive on their own (a Poisson process), two a second, however long answers take: a "
            "server that is too slow gets a queue, which a bound on concurrency would hide. Watched are the times "
            "between two tokens.",
            input_tokens=512,
            output_tokens=256,
            requests=240,
            request_rate=2.0,
        ),
        Recipe(
            "batch",
            "As much as there is room for: 256 at a time and four rounds of them, with the lengths of the baseline, so "
            "that both can be looked at side by side. Tokens an hour count.",
            input_tokens=2048,
            output_tokens=512,
            requests=1024,
            concurrency=256,
            warmups=32,
        ),
    )
}


def recipe(profile: str, given: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of a profile, some figures replaced."""
    if profile not in RECIPES:
        raise RecipeError(f"profile is {profile!r}: there are recipes for {', '.join(RECIPES)}")
    return RECIPES[profile].changed(given or {})
