"""p90 of the time to the first token at 80 % load: ours, vllm-router, round robin and least_conn on the same arrivals.

All four run at once, each with four fake replicas of 16 slots of its own, so that whatever disturbs the machine
disturbs all of them; every arrival is sent to all four by one client. No TLS, which the others have not.
"""

from __future__ import annotations

import statistics

from benchmarks.results import Row
from benchmarks.site import Setting, say
from benchmarks.traffic import rivals
from tests.traffic import faults, load
from tests.traffic.fleet import BALANCERS, SERVERS, Replica, await_that, control, holder, row
from tools.sandbox.layout import VIRTUAL_ADDRESS

OURS = f"http://{VIRTUAL_ADDRESS}:8080/v1"
_RUNS, _SECONDS = 5, 60
_SLOTS, _REPLICAS, _SHARE = 16, 4, 0.8
_TOKENS, _STEP, _FIRST = (20, 60), 0.1, 0.05
_RIVALS = (rivals.ROUTER, rivals.ROUND_ROBIN, rivals.LEAST_CONN)


def measure(setting: Setting) -> list[Row]:
    """Five runs, and the median of the ratios within a run."""
    rate = _SHARE * _SLOTS * _REPLICAS / (_FIRST + sum(_TOKENS) / 2 * _STEP)
    urls = {"ours": OURS, **{name: rivals.url(name) for name in _RIVALS}}
    ours = [one for one in setting.fleet.replicas if one.host in SERVERS[:2]]
    others = [one for one in setting.fleet.replicas if one not in ours]
    try:
        _state(others, "drained")
        for one in ours:
            faults.switch(one, "slow", itl_factor=5)
        behind = {}
        for number, name in enumerate(_RIVALS):
            ports = [rivals.PORT + 10 * number, rivals.PORT + 10 * number + 1]
            behind[name] = rivals.start_fakes(dict.fromkeys(SERVERS[:2], ports), itl_ms=100, slots=_SLOTS)
        rivals.start(behind)
        version = rivals.router_version()
        runs = [_run(rate, urls, number, setting.short) for number in range(1 if setting.short else _RUNS)]
    finally:
        rivals.stop()
        faults.clear(setting.fleet)
        _state(others, "active")
    found = []
    for name in urls:
        p90 = [run[name] for run in runs]
        ratio = statistics.median(run["ours"] / run[name] for run in runs)
        each = ", ".join(f"{value * 1000:.0f}" for value in p90)
        result = f"p90 {statistics.median(p90) * 1000:.0f} ms (runs: {each})"
        result += "" if name == "ours" else f"; ours is {ratio:.2f} of it, median of {len(runs)}"
        promised = name == rivals.ROUTER
        title = version if promised else name
        found.append(Row(title, result, "ours <= 1.10 of it" if promised else "", ratio <= 1.1 if promised else None))
    return found


def _run(rate: float, urls: dict[str, str], seed: int, short: bool) -> dict[str, float]:
    say(f"run {seed}")
    seconds = _SECONDS / 4 if short else _SECONDS
    options = ["--rate", str(rate), "--requests", "100000", "--seconds", str(seconds), "--streamed", "1", "--mirror"]
    options += ["--tokens", f"{_TOKENS[0]}-{_TOKENS[1]}", "--seed", str(seed)]
    told = load.start(*options, urls=tuple(urls.values())).wait().told["by_url"]
    failed = {name: told[url]["failed"] for name, url in urls.items() if told[url]["failed"]}
    assert not failed, f"failed requests: {failed}"
    return {name: float(told[url]["ttft"]["p90"]) for name, url in urls.items()}


def _state(replicas: list[Replica], state: str) -> None:
    body = {
        "replicas": [one.id for one in replicas],
        "state": state,
        "reason": "ttft",
        "by": "benchmark",
        "force": True,
    }
    code, told = control(holder(), "POST", "/v1/state", body)
    assert code == 200, told
    for name in BALANCERS:
        for one in replicas:
            await_that(lambda n=name, r=one: row(n, r)["in_rotation"] == (state == "active"), f"{one.id} {state}")
