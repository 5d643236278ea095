"""200 changes of membership and state under 64 keep-alive clients."""

from __future__ import annotations

import json
import time
from collections import Counter

from benchmarks import site
from benchmarks.results import Row
from benchmarks.site import Setting
from benchmarks.traffic import rivals
from tests.traffic import seen
from tests.traffic.fleet import ADDRESS, BALANCERS, await_that, control, holder, sh, status
from tests.traffic.load import under_load
from tools.sandbox.layout import MODEL_NAME

_FILE = "/etc/llm-agent/pools.d/benchmark.json"
_PAUSE_SECONDS = 0.3
_CLIENTS = 64


def _membership(pool: str, there: bool) -> str:
    one = {"id": "gpu3/x0", "pool": pool, "address": ADDRESS["gpu3"], "port": rivals.PORT, "model": MODEL_NAME}
    replicas = [one] if there else []
    return json.dumps({"version": 1, "writer": "benchmark", "remove_active": True, "replicas": replicas})


def _write(balancer: str, text: str) -> None:
    """Replace the file as one step, readable as its neighbour is."""
    aside = f"{_FILE}.new"
    own = f"chown --reference=/etc/llm-agent/pools.d/site.json {aside} && chmod 0640 {aside}"
    sh(balancer, f"cat > {aside} && {own} && mv {aside} {_FILE}", given=text)


def measure(setting: Setting) -> list[Row]:
    """Half of the changes drain and undrain a replica, half add and remove one."""
    count, victim, balancer = (20 if setting.short else 200), setting.pick(0), holder()
    rivals.start_fakes({"gpu3": [rivals.PORT]}, itl_ms=20, slots=16)
    refused = 0
    try:
        with under_load("--workers", str(_CLIENTS), "--tokens", "2-40", "--words", "5-50") as loads:
            for number in range(count // 2):
                state = "active" if number % 2 else "drained"
                body = {"replicas": [victim.id], "state": state, "reason": "benchmark", "by": "benchmark"}
                refused += control(balancer, "POST", "/v1/state", {**body, "force": False})[0] != 200
                time.sleep(_PAUSE_SECONDS)
                there = number % 2 == 0
                for name in BALANCERS:
                    _write(name, _membership(setting.fleet.pool, there))
                await_that(lambda wanted=there: _has(balancer) == wanted, "the agent has read the file", 30)
                time.sleep(_PAUSE_SECONDS)
    finally:
        for name in BALANCERS:
            _write(name, _membership(setting.fleet.pool, False))
        await_that(lambda: not any(_has(name) for name in BALANCERS), "the replica is forgotten", 30)
        sh(BALANCERS[0], f"rm -f {_FILE}")
        sh(BALANCERS[1], f"rm -f {_FILE}")
        rivals.stop()
    rows = loads[0].rows
    bad = seen.bad(rows)
    kinds = ", ".join(f"{verdict} {number}" for verdict, number in Counter(one["verdict"] for one in bad).items())
    result = f"{len(bad)} failed{f' ({kinds})' if kinds else ''} of {len(rows)} in {count} changes"
    lua = site.form() == "lua"
    good = not bad and not refused if lua else None
    return [Row(f"{_CLIENTS} keep-alive clients", result, "0 resets" if lua else "stated", good)]


def _has(balancer: str) -> bool:
    return any(one["id"] == "gpu3/x0" for one in status(balancer)["replicas"])
