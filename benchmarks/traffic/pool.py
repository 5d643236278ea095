"""A whole pool is slow, or full: nobody is ejected, and clients get 503 with Retry-After."""

from __future__ import annotations

import time

from benchmarks.results import Row
from benchmarks.site import Setting
from tests.traffic import faults, fleet, seen
from tests.traffic.fleet import CLIENT, sh
from tests.traffic.load import SERVICE, under_load
from tools.sandbox.layout import MODEL_NAME

_WATCH_SECONDS = 120


def _answer_head() -> str:
    """The head of one answer, in small letters."""
    ask = f"curl -s -o /dev/null -D - --cacert /opt/sandbox/pki/ca.crt -H @- {SERVICE}/completions"
    body = f"""-H 'Content-Type: application/json' -d '{{"model":"{MODEL_NAME}","prompt":"x","max_tokens":1}}'"""
    return sh(CLIENT, f"{ask} {body}", given=f"Authorization: Bearer {fleet.key()}\n").lower()


def measure(setting: Setting) -> list[Row]:
    """Both, one after the other."""
    seconds = _WATCH_SECONDS / 10 if setting.short else _WATCH_SECONDS
    begin = time.time()
    for one in setting.fleet.replicas:
        faults.switch(one, "slow", ttft_factor=40)
    with under_load("--rate", "10", "--tokens", "4-8") as loads:
        time.sleep(seconds)  # the time in which nothing may happen
    removed, rows = _removed(begin), loads[0].rows
    slow = f"{removed} removals in {seconds:.0f} s; {len(seen.bad(rows))} of {len(rows)} failed"
    found = [Row("2 s to the first token everywhere", slow, "nobody ejected", not removed and not seen.bad(rows))]

    begin = time.time()
    for one in setting.fleet.replicas:
        faults.switch(one, "slow", slots=1, queue=2)
    with under_load("--rate", "25", "--tokens", "50-60") as loads:
        time.sleep(seconds)
        head = _answer_head()
    removed, verdicts = _removed(begin), {row["verdict"] for row in loads[0].rows}
    told = "with Retry-After" if "retry-after:" in head else "without Retry-After"
    full = f"{removed} removals in {seconds:.0f} s; {len(loads[0].rows)} answers: {', '.join(sorted(verdicts))}, {told}"
    # sse_error: vLLM's own refusal of a stream whose head it had sent before it found the queue full
    good = (
        not removed and {"good", "http_503"} <= verdicts <= {"good", "http_503", "sse_error"} and "retry-after:" in head
    )
    return [*found, Row("full everywhere", full, "nobody ejected; 503 with Retry-After only", good)]


def _removed(begin: float) -> int:
    return sum(len(events) for events in seen.removals(begin).values())
