# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths of prompts and answers: as given, as a balancer's log tells them, or made up; and prompts of such lengths."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

MAX_LENGTH = 1_000_000
LOG_BYTES = 8 * 1024 * 1024  # of the end of the log: some 20,000 requests
# What a request and an answer weigh beside their text, and a token within a stream, in bytes. The log has no content,
# so these are estimates: headers and JSON around the text, and one event of vLLM 0.32 for each token.
_REQUEST, _WHOLE, _HEAD, _EVENT, _TOKEN = 600, 700, 300, 240, 4
_PATHS = ("/v1/completions", "/v1/chat/completions")
_WORDS = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room mother area
money story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea kid body parent""".split()


class ShadowError(LlmopsError):
    """A comparison that cannot be made, and what is needed for it."""


class SparseLog(ShadowError):
    """A log that holds too few requests to tell what a pool gets."""


@dataclass(frozen=True)
class Kind:
    """Requests of one length, in tokens, and how many of them there are beside the others."""

    prompt_tokens: int
    output_tokens: int
    weight: float = 1.0


SYNTHETIC = (Kind(64, 64, 3), Kind(256, 128, 4), Kind(1024, 256, 2), Kind(3072, 256, 1))


def read_mix(data: Sequence[Mapping[str, Any]]) -> list[Kind]:
    """The mix that was given; ShadowError names the entry and the key."""
    if not data:
        raise ShadowError("mix is empty: name lengths, or leave it out for a synthetic one")
    mix = []
    for number, entry in enumerate(data, 1):
        kind = Kind(**entry)
        for name in ("prompt_tokens", "output_tokens"):
            if not 1 <= getattr(kind, name) <= MAX_LENGTH:
                raise ShadowError(f"mix {number}: {name} is {getattr(kind, name)}: give 1 to {MAX_LENGTH} tokens")
        if not (kind.weight > 0 and math.isfinite(kind.weight)):
            raise ShadowError(f"mix {number}: weight is {kind.weight:g}: give a number above 0, or leave it out")
        mix.append(kind)
    return mix


def mix_of_log(path: str, pool: str, requests: int) -> list[Kind]:
    """The mix of a pool's answered completions at the end of a balancer's log; SparseLog when it has too few."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = log.read().split(b"\n")
    except OSError as problem:
        raise ShadowError(f"access_log {path}: {problem.strerror or problem}: run on a balancer, as root") from None
    lengths = [length for line in lines for length in _lengths(line, pool)]
    if len(lengths) < requests:
        raise SparseLog(
            f"access_log {path}: its last {LOG_BYTES >> 20} MiB hold {len(lengths)} answered completions of pool "
            f"{pool}, needed are {requests}"
        )
    return _grouped(lengths)


def _lengths(line: bytes, pool: str) -> Iterator[tuple[int, int]]:
    """Estimated tokens of prompt and answer; nothing for what is no whole completion of the pool."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        entry = json.loads(line)
        if entry["pool"] == pool and entry["uri"] in _PATHS and entry["status"] == 200 and entry["done"] == "OK":
            # several tries leave several times in one field
            first, whole = (float(re.split("[,:]", str(entry[name])).pop()) for name in ("ttfb", "up_rt"))
            streamed = first <= whole / 2  # a stream has its head before its text
            sent = int(entry["sent"])
            output = (sent - _HEAD) / _EVENT if streamed else (sent - _WHOLE) / _TOKEN
            yield max(1, round((int(entry["req_len"]) - _REQUEST) / _TOKEN)), max(1, round(output))


def _grouped(lengths: Iterable[tuple[int, int]]) -> list[Kind]:
    """Lengths that are within a factor of two become one kind, of their mean."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for prompt, output in lengths:
        groups.setdefault((prompt.bit_length(), output.bit_length()), []).append((prompt, output))
    means = [[round(sum(values) / len(group)) for values in zip(*group)] for _key, group in sorted(groups.items())]
    weights = [len(group) for _key, group in sorted(groups.items())]
    return [Kind(prompt, output, weight) for (prompt, output), weight in zip(means, weights)]


def draw(mix: Sequence[Kind], requests: int, seed: int) -> list[Kind]:
    """So many requests, in the shares of the mix and in a random order that the seed decides."""
    total = sum(kind.weight for kind in mix)
    drawn: list[Kind] = []
    reached = 0.0
    for kind in mix:
        reached += kind.weight
        drawn += [kind] * (round(requests * reached / total) - len(drawn))
    random.Random(seed).shuffle(drawn)
    return drawn


def clipped(kind: Kind, longest: int, prompt: int, output: int) -> Kind:
    """The kind as it may be asked: within limits, and within a context of ``longest`` tokens with a tenth to spare."""
    room = longest * 9 // 10
    output = max(1, min(kind.output_tokens, output, room // 2))
    return Kind(max(1, min(kind.prompt_tokens, prompt, room - output)), output, kind.weight)


def text_of(length: int, seed: int) -> str:
    """A text of so many characters that begins unlike that of any other seed, so that no prefix cache knows it."""
    chosen = random.Random(seed)
    words = [
        f"{chosen.getrandbits(32):08x}",
        *chosen.choices(_WORDS, k=length // 4 + 1),
    ]  # a word has 3 letters or more
    return " ".join(words)[:length]


def as_data(mix: Iterable[Kind]) -> list[dict[str, Any]]:
    """The mix as it can be given again."""
    return [asdict(kind) for kind in mix]
