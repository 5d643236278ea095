"""One agent and 200 replicas: its CPU and memory. The replicas are a fake of their own (tests/fakes/replicas.py)."""

from __future__ import annotations

import json
import pathlib
import time

from benchmarks.results import Row
from benchmarks.site import Setting, say
from benchmarks.traffic.costs import cost
from tests.fakes import replicas as fake
from tests.traffic.fleet import ADDRESS, await_that, holder, other, sh, status
from tools.sandbox.layout import MODEL_NAME

_COUNT, _PORT, _HOST = 200, 20000, "mon1"
_SETTLE_SECONDS, _SECONDS = 60, 120
_FILE = "/etc/llm-agent/pools.d/benchmark.json"


def measure(setting: Setting) -> list[Row]:
    """The agent of the balancer that does not hold the address gets a second pool of so many replicas."""
    count, balancer = _COUNT, other(holder())
    page = sh(_HOST, f"curl -sf http://{setting.fleet.replicas[0].endpoint}/metrics")
    sh(_HOST, "cat > /run/replicas.page", given=page)
    sh(_HOST, "cat > /run/replicas.py", given=pathlib.Path(fake.__file__).read_text())
    command = f"python3 /run/replicas.py --page /run/replicas.page --address {ADDRESS[_HOST]} --port {_PORT}"
    sh(_HOST, f"systemd-run -q --unit rival-replicas -p LimitNOFILE=65536 {command} --count {count}")
    idle = _used(balancer, 10)
    try:
        _write(balancer, count)
        await_that(lambda: _up(balancer) == count, f"{count} replicas are up", _SETTLE_SECONDS * 2)
        time.sleep(_SETTLE_SECONDS)  # past the start, in which everything is asked at once
        say("measuring")
        share, memory = _used(balancer, _SECONDS / 10 if setting.short else _SECONDS)
        still = _up(balancer)
    finally:
        _write(balancer, 0)
        await_that(lambda: _known(balancer) == 0, "they are forgotten", 60)
        sh(balancer, f"rm -f {_FILE}")
        sh(_HOST, "systemctl stop rival-replicas; true")
    result = f"{share * 100:.1f} % of a core, {memory / 1024:.0f} MB; {still} of {count} up at the end"
    result += f" (with {len(setting.fleet.replicas)} replicas: {idle[0] * 100:.1f} %, {idle[1] / 1024:.0f} MB)"
    good = share <= 0.1 and memory <= 80 * 1024 and still == count
    return [Row(f"agent with {count} + {len(setting.fleet.replicas)} replicas", result, "<= 10 %, <= 80 MB", good)]


def _used(balancer: str, seconds: float) -> tuple[float, float]:
    """Share of a core over so many seconds, and kB of memory at the end."""
    before, begin = cost(balancer, "llm-agent"), time.monotonic()
    time.sleep(seconds)  # what is measured
    after = cost(balancer, "llm-agent")
    return (after.cpu - before.cpu) / (time.monotonic() - begin), after.memory


def _write(balancer: str, count: int) -> None:
    rows = [
        {
            "id": f"many{number}/r0",
            "pool": "many",
            "address": ADDRESS[_HOST],
            "port": _PORT + number,
            "model": MODEL_NAME,
        }
        for number in range(count)
    ]
    text = json.dumps({"version": 1, "writer": "benchmark", "remove_active": True, "replicas": rows})
    own = f"chown --reference=/etc/llm-agent/pools.d/site.json {_FILE}.new && chmod 0640 {_FILE}.new"
    sh(balancer, f"cat > {_FILE}.new && {own} && mv {_FILE}.new {_FILE}", given=text)


def _many(balancer: str) -> list[dict[str, object]]:
    return [row for row in status(balancer)["replicas"] if row["pool"] == "many"]


def _known(balancer: str) -> int:
    return len(_many(balancer))


def _up(balancer: str) -> int:
    return sum(bool(row["in_rotation"]) for row in _many(balancer))
