"""What a run came to: counts by verdict, percentiles, and each failure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .request import GOOD, Outcome

QUANTILES = (50, 90, 99)


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p90, p99 (nearest rank: a value that was measured) and max, or None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    ranks = {f"p{q}": ordered[max(0, -(-len(ordered) * q // 100) - 1)] for q in QUANTILES}
    return {name: round(value, 4) for name, value in {**ranks, "max": ordered[-1]}.items()}


def summary(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Return the result as it is written to the JSON file, in seconds.

    TTFT, ITL and TPOT are of good streamed requests. ITL is between arrivals, which may bring several tokens; TPOT is
    per token. Lag is how much later than due the requests of an open loop were sent: above some milliseconds the
    client, not the server, is what was measured.
    """
    good = [outcome for outcome in outcomes if outcome.verdict == GOOD]
    bad = [outcome for outcome in outcomes if outcome.verdict != GOOD]
    streams = [outcome for outcome in good if outcome.ask.stream]
    return {
        "requests": len(outcomes),
        "streamed": sum(outcome.ask.stream for outcome in outcomes),
        "good": len(good),
        "failed": len(bad),
        "failed_before_first_byte": sum(not outcome.began for outcome in bad),
        "verdicts": dict(Counter(outcome.verdict for outcome in outcomes)),
        "seconds": round(seconds, 2),
        "tokens": sum(outcome.ask.tokens for outcome in good),
        "ttft": percentiles([outcome.ttft for outcome in streams if outcome.ttft is not None]),
        "itl": percentiles([gap for outcome in streams for gap in outcome.itl]),
        "tpot": percentiles([outcome.tpot for outcome in streams if outcome.tpot is not None]),
        "e2e": percentiles([outcome.seconds for outcome in good]),
        "lag": percentiles([outcome.lag for outcome in outcomes if outcome.lag is not None]),
        "failures": [
            {
                "time": round(outcome.start, 3),
                "seconds": round(outcome.seconds, 3),
                "url": outcome.url,
                "verdict": outcome.verdict,
                "reason": outcome.reason,
                "request_id": outcome.request_id,
                "received_bytes": outcome.received_bytes,
                "began": outcome.began,
                "tokens": outcome.ask.tokens,
                "stream": outcome.ask.stream,
                "reused_connection": outcome.reused,
            }
            for outcome in bad
        ],
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "cores": os.cpu_count(),
    }


def row(outcome: Outcome) -> dict[str, Any]:
    """Return one request: when it started (seconds since the epoch), what became of it, and its times in seconds."""
    told = {"start": round(outcome.start, 3), "seconds": round(outcome.seconds, 4), "url": outcome.url}
    told |= {"verdict": outcome.verdict, "began": outcome.began, "ttft": outcome.ttft, "stream": outcome.ask.stream}
    return {**told, "tokens": outcome.ask.tokens, "request_id": outcome.request_id}


def text(result: dict[str, Any]) -> str:
    """Return a few lines for people."""
    counts = {name: result[name] for name in ("requests", "streamed", "seconds", "good", "failed")}
    lines = [
        "{requests} requests ({streamed} streamed) in {seconds} s: {good} good, {failed} failed,".format(**counts)
        + f" {result['failed_before_first_byte']} of them before the first byte"
    ]
    for name in ("ttft", "itl", "tpot", "e2e", "lag"):
        if result[name]:
            values = "  ".join(f"{key} {value * 1000:.0f}" for key, value in result[name].items())
            lines.append(f"{name.upper():<5} ms  {values}")
    lines += [f"{verdict}: {count}" for verdict, count in result["verdicts"].items() if verdict != GOOD]
    lines.append(f"load average {result['load_average'][0]}, {result['cores']} cores")
    return "\n".join(lines)
