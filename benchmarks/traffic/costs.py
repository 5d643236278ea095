"""CPU per streamed token and per request, memory per open stream: ours, vllm-router, plain NGINX, one after another.

CPU is that of all processes of the unit, from /proc (user and system); memory is their private and shared part (PSS).
Ours is NGINX alone: what the agent uses does not grow with requests, and is a measure of its own (agent200).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import site
from benchmarks.results import Row
from benchmarks.site import Setting, say
from benchmarks.traffic import rivals
from benchmarks.traffic.ttft import OURS
from tests.traffic import faults, load
from tests.traffic.fleet import SERVERS, await_that, holder, sh

_STREAMS, _TOKENS, _STEP_SECONDS = 1000, 90, 1.0
_OPENING_SECONDS, _WINDOW_SECONDS = 30, 30
_REQUESTS, _WORKERS = 5000, 128
_COST = """
set -e
pids=$(cat /sys/fs/cgroup/*/$G/cgroup.procs /sys/fs/cgroup/$G/cgroup.procs 2>/dev/null | sort -u)
for p in $pids; do
  awk -v t="$(getconf CLK_TCK)" '{ sub(/.*\\) /, ""); print "cpu", ($12 + $13) / t }' /proc/$p/stat
  awk '/^Pss:/ { print "kb", $2 }' /proc/$p/smaps_rollup
done
"""


@dataclass(frozen=True)
class Cost:
    """CPU seconds since the start, and memory in kB, of all processes of a unit."""

    cpu: float
    memory: float


def cost(host: str, unit: str) -> Cost:
    """Ask the host; AssertionError when the unit has no process."""
    found: dict[str, list[float]] = {"cpu": [], "kb": []}
    for line in sh(host, f"G=$(systemctl show -p ControlGroup --value {unit}); {_COST}").splitlines():
        name, value = line.split()
        found[name].append(float(value))
    assert found["cpu"], f"{host}: {unit} has no process"
    return Cost(sum(found["cpu"]), sum(found["kb"]))


def _tokens(addresses: list[str]) -> float:
    """Tokens that these replicas have made."""
    total = 0.0
    for address in addresses:
        page = sh("mon1", f"curl -sf http://{address}/metrics | grep '^vllm:generation_tokens_total'")
        total += float(page.split()[-1])
    return total


def measure(setting: Setting) -> list[Row]:
    """Ours in the form that is in force, then each rival; ours first, so that both see the same machine."""
    ours = f"ours ({site.form()})"
    subjects = {ours: (OURS, holder(), "nginx", [one.endpoint for one in setting.fleet.replicas])}
    ports = dict.fromkeys(SERVERS, [rivals.PORT, rivals.PORT + 1])
    found: dict[str, tuple[float, float, float]] = {}
    try:
        behind = rivals.start_fakes(ports, itl_ms=_STEP_SECONDS * 1000, slots=1024)
        rivals.start(dict.fromkeys((rivals.ROUTER, rivals.ROUND_ROBIN, rivals.LEAST_CONN), behind))
        for name in (rivals.ROUTER, rivals.LEAST_CONN):
            subjects[name] = (rivals.url(name), rivals.HOST, rivals.unit(name), behind)
        for one in setting.fleet.replicas:
            faults.switch(one, "slow", itl_factor=50, slots=1024)
        for name, (url, host, unit, replicas) in subjects.items():
            say(name)
            found[name] = (*_streams(url, host, unit, replicas), _requests(url, host, unit, setting.short))
    finally:
        rivals.stop()
        faults.clear(setting.fleet)
    router = found[rivals.ROUTER]
    units = ("us CPU per streamed token", "kB per open stream", "us CPU per request")
    rows = []
    for number, what in enumerate(units):
        for name, values in found.items():
            less = values[number] < router[number] if name == ours else None
            rows.append(
                Row(f"{what}, {name}", f"{values[number]:.1f}", "below vllm-router" if name == ours else "", less)
            )
    return rows


def _streams(url: str, host: str, unit: str, replicas: list[str]) -> tuple[float, float]:
    """CPU microseconds a token and kB a stream, while 1,000 streams are open and none begins or ends."""
    idle = cost(host, unit)
    options = ["--rate", str(_STREAMS / _OPENING_SECONDS * 1.5), "--requests", str(_STREAMS), "--streamed", "1"]
    running = load.start(*options, "--tokens", str(_TOKENS), "--timeout", "300", urls=(url,))
    await_that(lambda: _open(replicas) >= _STREAMS, f"{_STREAMS} streams are open", _OPENING_SECONDS * 2)
    before, tokens = cost(host, unit), _tokens(replicas)
    time.sleep(_WINDOW_SECONDS)  # what is measured
    after, made = cost(host, unit), _tokens(replicas) - tokens
    still = _open(replicas)
    told = running.wait().told
    assert told["failed"] == 0, told["failures"][:3]
    assert still >= _STREAMS, f"only {still} streams were still open at the end: the window was too long"
    return (after.cpu - before.cpu) / made * 1e6, (after.memory - idle.memory) / _STREAMS


def _open(replicas: list[str]) -> int:
    ask = "; ".join(f"curl -sf http://{one}/metrics | grep '^vllm:num_requests_running'" for one in replicas)
    return int(sum(float(line.split()[-1]) for line in sh("mon1", ask).splitlines()))


def _requests(url: str, host: str, unit: str, short: bool) -> float:
    """CPU microseconds a request: short ones, over kept connections, not streamed."""
    count = _REQUESTS // 10 if short else _REQUESTS
    before = cost(host, unit)
    options = ["--requests", str(count), "--workers", str(_WORKERS), "--tokens", "1", "--streamed", "0"]
    told = load.start(*options, urls=(url,)).wait().told
    assert told["failed"] == 0, told["failures"][:3]
    return (cost(host, unit).cpu - before.cpu) / count * 1e6
