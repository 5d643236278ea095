# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether new replicas are worse than old ones: the rules, without any waiting or asking."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_reading import FINISHED, CanaryError, Counts
from ansible_collections.llmops.vllm.plugins.module_utils._gate.comparison import (
    NOT_COMPARED,
    NOT_WORSE,
    WORSE,
    Check,
    Verdict,
    check_limits,
    rounded,
)

SCARCE = "not_enough_traffic"  # the result of a check
_CHANCE = 4.0  # standard deviations beyond which a difference in length is no chance
_UNLIKELY = 0.001  # probability below which errors of the new ones alone are no chance, with however few samples
_SHIFT = 0.2  # share of answers, or of prompt tokens, whose change is worth a note


@dataclass(frozen=True)
class Limits:
    """What counts as worse: both the ratio and the difference must be passed."""

    samples: int = 100  # requests a side
    ratio: float = 1.5
    ttft_seconds: float = 0.1
    itl_seconds: float = 0.02
    error_points: float = 0.5  # percentage points
    output_length: float = 20.0  # tokens of an answer, in either direction

    def __post_init__(self) -> None:
        check_limits(self, CanaryError)


@dataclass(frozen=True)
class Model:
    """What a replica serves: the name that clients use, the revision of the alias, the directory."""

    name: str = ""
    revision: str = ""
    root: str = ""

    def same(self, other: Model) -> bool | None:
        """Whether both are the same model; None where that cannot be told."""
        if self.revision and other.revision:
            return (self.name, self.revision) == (other.name, other.revision)
        if self.root and other.root:
            return (self.name, self.root) == (other.name, other.root)
        return None


@dataclass(frozen=True)
class Side:
    """What one side did while it was watched."""

    label: str  # new, old, record
    counts: Counts
    model: Model | None = None  # None: not told, or not the same at all replicas
    replicas: tuple[str, ...] = ()
    running: int = 0  # requests that have not ended yet

    def figures(self) -> dict[str, Any]:
        """Figures for people; seconds, tokens, percent. None where there was nothing to take a mean of."""
        c = self.counts
        return {
            "replicas": list(self.replicas),
            "requests": int(c.started),
            "one_token_requests": int(c.one_token),
            "answered": int(c.answered),
            "errors": int(c.errors),
            "error_percent": rounded(_mean(100 * c.errors, c.answered), 3),
            "refused": int(c.refused),
            "ttft": rounded(ttft(c)),
            "queue": rounded(_mean(c.queue_sum, c.queue_count)),
            "itl": rounded(_mean(c.itl_sum, c.itl_count)),
            "prompt_tokens": rounded(_mean(c.prompt_sum, c.prompt_count), 1),
            "output_tokens": rounded(output(c), 1),
            "cached_percent": rounded(_mean(100 * c.cache_hits, c.cache_queries), 1),
            "finished": {reason: int(getattr(c, reason)) for reason in FINISHED},
        }


def judge(new: Side, old: Side, limits: Limits) -> Verdict:
    """Compare both sides by every rule."""
    n, o = new.counts, old.counts
    latency = [
        _slower("ttft", "TTFT", (ttft(n), ttft(o)), (n.started, o.started), limits.ttft_seconds, limits),
        _slower("itl", "ITL", (_itl(n), _itl(o)), (_itl_samples(n), _itl_samples(o)), limits.itl_seconds, limits),
    ]
    # among many probes, which are short and equal on both sides, a slow answer to a client does not show
    if max(n.one_token - n.started, o.one_token - o.started) > 0 and latency[0].result != SCARCE:
        words = f"first tokens of {n.started:.0f} requests among {n.one_token:.0f} probes for one token at the new and "
        words += f"{o.started:.0f} among {o.one_token:.0f} at the old, more than probes are needed"
        latency[0] = replace(latency[0], result=SCARCE, words=words)
    return Verdict((*latency, errors(new, old, limits), _output(new, old, limits)), SCARCE)


def errors(new: Side, old: Side, limits: Limits) -> Check:
    """Compare the ratio of errors; the one rule that need wait neither for the end of a soak nor for all samples."""
    n, o = new.counts, old.counts
    ratios = _mean(n.errors, n.answered), _mean(o.errors, o.answered)
    words = f"errors {n.errors:.0f} of {n.answered:.0f} against {o.errors:.0f} of {o.answered:.0f}"
    enough = min(n.answered, o.answered) >= limits.samples
    higher = 100 * ((ratios[0] or 0.0) - (ratios[1] or 0.0)) > limits.error_points
    worse = higher and (enough or _by_chance(n, o) < _UNLIKELY)
    result = WORSE if worse else NOT_WORSE if enough else SCARCE
    if worse:
        words += f" ({100 * (ratios[0] or 0.0):.2f} % against {100 * (ratios[1] or 0.0):.2f} %)"
    elif not enough:
        words = f"answers to {_sizes((n.answered, o.answered), limits)}"
    return Check("errors", result, *ratios, int(n.answered), int(o.answered), words)


def _slower(
    name: str,
    title: str,
    means: tuple[float | None, float | None],
    samples: tuple[float, float],
    difference: float,
    limits: Limits,
) -> Check:
    new, old = means
    if min(samples) < limits.samples or new is None or old is None:
        words = f"first tokens of {_sizes(samples, limits)}"
        return Check(name, SCARCE, new, old, int(samples[0]), int(samples[1]), words)
    worse = new > limits.ratio * old and new - old > difference
    words = f"{title} {1000 * new:.0f} ms against {1000 * old:.0f} ms"
    words += f" ({_times(new, old)}{1000 * (new - old):.0f} ms more)" if worse else ""
    words += f" over {samples[0]:.0f} requests at the new and {samples[1]:.0f} at the old"
    return Check(name, WORSE if worse else NOT_WORSE, new, old, int(samples[0]), int(samples[1]), words)


def _by_chance(new: Counts, old: Counts) -> float:
    """How likely the new ones have as many of all these errors, or more, when both sides are alike.

    Fisher's exact test, one-sided: holds for any sizes, where a ratio of few samples says nothing.
    """
    (sample, bad), (others, others_bad) = ((int(c.answered), int(min(c.errors, c.answered))) for c in (new, old))
    good, failed = sample + others - bad - others_bad, bad + others_bad
    ways = (math.comb(failed, here) * math.comb(good, sample - here) for here in range(bad, min(failed, sample) + 1))
    return sum(ways) / math.comb(sample + others, sample)


def _output(new: Side, old: Side, limits: Limits) -> Check:
    n, o = new.counts, old.counts
    lengths = output(n), output(o)
    samples = n.output_count - n.one_token, o.output_count - o.one_token
    sizes = max(0, int(samples[0])), max(0, int(samples[1]))
    same = new.model.same(old.model) if new.model and old.model else None
    if not same:
        words = "of different models" if same is False else "of models that do not tell whether they are the same"
        return Check("output", NOT_COMPARED, *lengths, *sizes, f"lengths {words} are not compared")
    if min(samples) < limits.samples or lengths[0] is None or lengths[1] is None:
        return Check("output", SCARCE, *lengths, *sizes, f"whole answers to {_sizes(samples, limits)}")
    # what ended so soon after the return was short: an answer that still runs counts as one of the longest
    longest = lengths[1] + _CHANCE * _deviation(o)
    at_most = (lengths[0] * samples[0] + longest * new.running) / (samples[0] + new.running)
    shorter, longer = sorted((max(lengths[0], min(at_most, lengths[1])), lengths[1]))
    chance = math.hypot(_deviation(n) / math.sqrt(samples[0]), _deviation(o) / math.sqrt(samples[1]))
    worse = longer > limits.ratio * shorter and longer - shorter > max(limits.output_length, _CHANCE * chance)
    words = f"answers of {lengths[0]:.0f} tokens against {lengths[1]:.0f} from the same model"
    words += f" over {sizes[0]} requests at the new and {sizes[1]} at the old" if worse else ""
    return Check("output", WORSE if worse else NOT_WORSE, *lengths, *sizes, words)


def notes(new: Side, old: Side, limits: Limits) -> Iterator[str]:
    """What a person should know who reads the figures; none of it decides."""
    n, o = new.counts, old.counts
    output_check = _output(new, old, limits)
    if output_check.result == NOT_COMPARED:
        yield output_check.words
    prompts = _mean(n.prompt_sum, n.prompt_count) or 0.0, _mean(o.prompt_sum, o.prompt_count) or 0.0
    if min(prompts) > 0 and max(prompts) / min(prompts) > limits.ratio:
        yield f"prompts of {prompts[0]:.0f} tokens against {prompts[1]:.0f}: their TTFT is that of different work"
    cached = _mean(n.cache_hits, n.cache_queries), _mean(o.cache_hits, o.cache_queries)
    if cached[0] is not None and cached[1] is not None and cached[1] - cached[0] > _SHIFT:
        yield (
            f"{100 * cached[0]:.0f} % of the prompt tokens came from the prefix cache against {100 * cached[1]:.0f} %: "
            "it may still be cold; ignore more requests (ignore)"
        )
    asked = n.answered + n.refused, o.answered + o.refused
    more = (_mean(n.refused, asked[0]) or 0.0) - (_mean(o.refused, asked[1]) or 0.0)
    if n.refused >= 5 and 100 * more > limits.error_points:
        yield (
            f"{n.refused:.0f} of {asked[0]:.0f} requests were refused as the client's fault (4xx) against "
            f"{o.refused:.0f} of {asked[1]:.0f}: does the new release refuse what the old one took?"
        )
    ends = sum(getattr(n, reason) for reason in FINISHED), sum(getattr(o, reason) for reason in FINISHED)
    if new.model and old.model and new.model.same(old.model) and min(ends) >= limits.samples:
        for reason in FINISHED:
            shares = getattr(n, reason) / ends[0], getattr(o, reason) / ends[1]
            if abs(shares[0] - shares[1]) > _SHIFT:
                yield f"{100 * shares[0]:.0f} % of the answers ended with {reason} against {100 * shares[1]:.0f} %"


def ttft(counts: Counts) -> float | None:
    """Mean seconds to the first token without the time in the queue; None where there was none."""
    first = _mean(counts.ttft_sum, counts.ttft_count)
    return None if first is None else max(0.0, first - (_mean(counts.queue_sum, counts.queue_count) or 0.0))


def output(counts: Counts) -> float | None:
    """Mean tokens of the answers to clients; None where there was none."""
    return _mean(counts.output_sum - counts.one_token, counts.output_count - counts.one_token)


def _deviation(counts: Counts) -> float:
    """Standard deviation of the lengths, in tokens; around the mean of the histogram, whose buckets are wide."""
    count = counts.output_count - counts.one_token
    return math.sqrt(max(0.0, counts.output_squares / count - (counts.output_near / count) ** 2))


def _itl(counts: Counts) -> float | None:
    return _mean(counts.itl_sum, counts.itl_count)


def _itl_samples(counts: Counts) -> float:
    """Requests, not tokens: the many tokens of one request are one sample of how it went."""
    return min(counts.started, counts.itl_count)


def _mean(value: float, count: float) -> float | None:
    return value / count if count > 0 else None


def _times(new: float, old: float) -> str:
    return f"{new / old:.1f} times, " if old > 0 else ""


def _sizes(samples: tuple[float, float], limits: Limits) -> str:
    new, old = (max(0.0, count) for count in samples)
    return f"{new:.0f} requests at the new and {old:.0f} at the old ({limits.samples} are needed)"
