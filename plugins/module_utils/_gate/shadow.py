# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a candidate answers the same prompts worse than an old replica: the rules, without any asking."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._gate.comparison import (
    NOT_COMPARED,
    NOT_WORSE,
    WORSE,
    Check,
    Verdict,
    check_limits,
    rounded,
)
from ansible_collections.llmops.vllm.plugins.module_utils._gate.completion import Answer, Outcome
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow_mix import ShadowError

SCARCE = "not_enough_samples"  # the result of a check


@dataclass(frozen=True)
class Limits:
    """What counts as worse: a latency must pass both the ratio and its difference."""

    samples: int = 30  # pairs of answers
    ratio: float = 1.5
    ttft_seconds: float = 0.1
    itl_seconds: float = 0.02
    error_points: float = 0.5  # percentage points
    finish_points: float = 20.0  # percentage points, in either direction
    common_prefix: float = 0.2  # share, 0 to 1

    def __post_init__(self) -> None:
        check_limits(self, ShadowError)
        if self.common_prefix > 1:
            raise ShadowError(f"common_prefix is {self.common_prefix:g}, needed is a share from 0 to 1")


@dataclass(frozen=True)
class Pair:
    """The outcomes of one prompt."""

    new: Outcome
    old: Outcome

    @property
    def whole(self) -> bool:
        """Whether both answered."""
        return isinstance(self.new, Answer) and isinstance(self.old, Answer)


def judge(pairs: Sequence[Pair], same_model: bool, limits: Limits) -> Verdict:
    """Compares errors, latencies, reasons why answers ended, and the answers; those only of the same model."""
    both = _answered(pairs)
    checks = [_errors(pairs, limits), _latency("ttft", both, lambda answer: answer.ttft, limits.ttft_seconds, limits)]
    checks.append(_latency("itl", both, lambda answer: answer.itl, limits.itl_seconds, limits))
    checks.append(_finish(both, same_model, limits))
    checks.append(_divergence(both, same_model, limits))
    return Verdict(tuple(checks), SCARCE, limits.samples)


Both = Sequence[tuple[Answer, Answer]]


def _answered(pairs: Sequence[Pair]) -> Both:
    return [(pair.new, pair.old) for pair in pairs if isinstance(pair.new, Answer) and isinstance(pair.old, Answer)]


def _errors(pairs: Sequence[Pair], limits: Limits) -> Check:
    failed = [sum(not isinstance(outcome, Answer) for outcome in side) for side in _sides(pairs)]
    new, old = (100 * count / len(pairs) if pairs else 0.0 for count in failed)
    count = len(pairs)
    result = WORSE if new - old > limits.error_points else SCARCE if count < limits.samples else NOT_WORSE
    text = f"errors {failed[0]} of {count} against {failed[1]} of {count}"
    if failed[0]:
        text += f" ({next(str(pair.new) for pair in pairs if not isinstance(pair.new, Answer))})"
    return Check("errors", result, new, old, count, count, text)


def _sides(pairs: Sequence[Pair]) -> Iterator[list[Outcome]]:
    yield [pair.new for pair in pairs]
    yield [pair.old for pair in pairs]


def _latency(
    name: str, both: Both, value: Callable[[Answer], float | None], difference: float, limits: Limits
) -> Check:
    """Medians: the same prompts on both sides, so that a few that were held up decide nothing."""
    found = [(value(new), value(old)) for new, old in both]
    known = [(new, old) for new, old in found if new is not None and old is not None]
    if not known:
        return Check(name, SCARCE, None, None, 0, 0, f"{name} of no answers")
    new, old = (statistics.median(values) for values in zip(*known))
    worse = new > old * limits.ratio and new - old > difference
    text = f"{name} {1000 * new:.0f} ms against {1000 * old:.0f} ms (median of {len(known)} pairs)"
    return Check(name, _result(worse, len(known), limits), new, old, len(known), len(known), text)


def _result(worse: bool, samples: int, limits: Limits) -> str:
    return SCARCE if samples < limits.samples else WORSE if worse else NOT_WORSE


def _finish(both: Both, same_model: bool, limits: Limits) -> Check:
    new, old = (
        100 * sum(pair[side].finish_reason == "stop" for pair in both) / len(both) if both else 0.0 for side in (0, 1)
    )
    result = _result(abs(new - old) > limits.finish_points, len(both), limits) if same_model else NOT_COMPARED
    text = f"answers that ended by themselves {new:.0f} % against {old:.0f} % (of {len(both)} each)"
    return Check("finish_reasons", result, new, old, len(both), len(both), text)


def _divergence(both: Both, same_model: bool, limits: Limits) -> Check:
    differ, mean = _differing(both)
    parted = mean is not None and mean < limits.common_prefix
    result = _result(parted, len(both), limits) if same_model else NOT_COMPARED
    text = f"{differ} of {len(both)} greedy answers differ, common prefix {mean or 0:.2f} of their length in the mean"
    return Check("common_prefix", result, mean, None, len(both), len(both), text)


def _differing(both: Both) -> tuple[int, float | None]:
    shared = [common_prefix(new.text, old.text) for new, old in both]
    return sum(new.text != old.text for new, old in both), statistics.mean(shared) if shared else None


def divergence(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How many answers differ, and the mean share of them that is the same from the start."""
    differ, mean = _differing(_answered(pairs))
    return {"differ": differ, "common_prefix": rounded(mean)}


def common_prefix(left: str, right: str) -> float:
    """The share of the longer text after which two texts part; 1 for the same text."""
    longest = max(len(left), len(right))
    parted = next(
        (at for at, (ours, theirs) in enumerate(zip(left, right)) if ours != theirs), min(len(left), len(right))
    )
    return parted / longest if longest else 1.0


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One side for people; seconds and tokens. None where there was nothing to measure."""
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    itl = [answer.itl for answer in answers if answer.itl is not None]
    return {
        "requests": len(outcomes),
        "errors": len(outcomes) - len(answers),
        **_spread("ttft", [answer.ttft for answer in answers]),
        **_spread("itl", itl),
        "prompt_tokens": rounded(statistics.mean([answer.prompt_tokens for answer in answers]) if answers else None),
        "output_tokens": rounded(statistics.mean([answer.tokens for answer in answers]) if answers else None),
        "finished": dict(collections.Counter(answer.finish_reason for answer in answers)),
    }


def _spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)] if ordered else None
    return {f"{name}_p50": rounded(statistics.median(ordered) if ordered else None), f"{name}_p95": rounded(high)}
