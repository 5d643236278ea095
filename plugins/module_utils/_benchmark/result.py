# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a result of ``vllm bench serve`` says: its figures, and why they may not be those of the server."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import Recipe
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.run import PERCENTILES, BenchmarkError, Ran
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import printable

BUSY_CLIENT = 0.9  # of a core: the client is one thread, and what it cannot do any more waits in it
LATE = 0.05  # share by which the last request was later than planned
LENGTH = 0.05  # share by which prompts are longer or shorter than asked

_LATENCIES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}


def figures(document: Mapping[str, Any], load: Recipe) -> dict[str, Any]:
    """Return the figures of a result; BenchmarkError when no request succeeded, or it is none of vLLM's."""
    try:
        found = _figures(document, load)
    except (KeyError, TypeError, ValueError) as problem:
        raise BenchmarkError(
            f"the result of vllm bench serve has another form than that of vLLM 0.32 ({type(problem).__name__}: "
            f"{problem}): this version of vLLM is not known here"
        ) from None
    if not found["completed"]:
        raise BenchmarkError(f"none of {found['failed']} requests succeeded: {_reasons(document['errors'])}")
    return found


def _figures(document: Mapping[str, Any], load: Recipe) -> dict[str, Any]:
    completed, failed = int(document["completed"]), int(document["failed"])
    per_second = {
        name: round(float(document[name]), 3)
        for name in ("request_throughput", "output_throughput", "total_token_throughput")
    }
    good = _good(document, load)
    return {
        "completed": completed,
        "failed": failed,
        "short": sum(length < load.output_tokens for _ttft, _latency, length in _answers(document)),
        "duration_seconds": round(float(document["duration"]), 2),
        "input_tokens": int(document["total_input_tokens"]),
        "output_tokens": int(document["total_output_tokens"]),
        **per_second,
        "request_goodput": None if good is None else round(good / float(document["duration"]), 3),
        "good_share": None if good is None else round(good / (completed + failed), 4),
        **{
            f"{ours}_ms": {f"p{p}": round(float(document[f"p{p}_{theirs}_ms"]), 2) for p in PERCENTILES}
            for ours, theirs in _LATENCIES.items()
        },
    }


def _answers(document: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """Time to the first token, time of all, and tokens of each answer that did not fail.

    A stream that breaks off with an error event is none that failed for vLLM's client, as long as one token came. It
    has fewer tokens than asked, though nothing may end an answer before.
    """
    rows = zip(document["errors"], document["ttfts"], document["latencies"], document["output_lens"])
    return [(float(ttft), float(latency), int(length)) for error, ttft, latency, length in rows if not error]


def _good(document: Mapping[str, Any], load: Recipe) -> int | None:
    """Whole answers within the recipe's limits; None without any. vLLM's own count has those that broke off, too."""
    if not load.goodput_ms:
        return None
    limits = {name: limit / 1000 for name, limit in load.goodput_ms.items()}
    good = 0
    for ttft, latency, length in _answers(document):
        took = {"ttft": ttft, "tpot": (latency - ttft) / max(1, length - 1), "e2el": latency}
        good += length >= load.output_tokens and all(took[name] <= limit for name, limit in limits.items())
    return good


def doubts(ran: Ran, load: Recipe, found: Mapping[str, Any]) -> list[str]:
    """Return in words what makes the figures doubtful."""
    return [*_of_server(ran.document, load, found), *_of_client(ran, load)]


def _of_server(document: Mapping[str, Any], load: Recipe, found: Mapping[str, Any]) -> Iterator[str]:
    asked = found["completed"] + found["failed"]
    if found["failed"]:
        yield f"{found['failed']} of {asked} requests failed: {_reasons(document['errors'])}"
    if found["short"]:
        yield (
            f"{found['short']} of {asked} answers broke off before their {load.output_tokens} tokens; vLLM's client "
            "counts them as completed, and their times make the others look short"
        )
    mean = found["input_tokens"] / found["completed"]
    if abs(mean / load.input_tokens - 1) > LENGTH:
        yield (
            f"prompts had {mean:.0f} tokens on average, asked were {load.input_tokens}: the local tokenizer is not "
            "the server's"
        )


def _of_client(ran: Ran, load: Recipe) -> Iterator[str]:
    if ran.cpu_share is not None and ran.cpu_share >= BUSY_CLIENT:
        yield (
            f"the client used {ran.cpu_share:.0%} of a core, and it is one thread: these are figures of the client. "
            "Measure one replica, or lower the load"
        )
    starts = [float(start) for start in ran.document.get("start_times") or []]
    if not load.request_rate or load.concurrency or len(starts) < 2:
        return
    planned, took = load.requests / load.request_rate, max(starts) - min(starts)
    if took > planned * (1 + LATE):
        yield (
            f"the client needed {took:.0f} s to send what was planned for {planned:.0f} s: it is too slow for this "
            "rate, or its host is busy"
        )


def _reasons(errors: Sequence[Any]) -> str:
    """The most frequent reasons; of a traceback, its last line."""
    lines = (str(error).strip().splitlines() for error in errors if error)
    counted = collections.Counter(printable(each[-1].encode(), 120) for each in lines if each)
    return "; ".join(f"{count} x {reason}" for reason, count in counted.most_common(3)) or "no reason was told"
