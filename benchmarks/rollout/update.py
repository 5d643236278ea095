"""The whole fleet moves to another release under load; and the same by hand, one unit after another."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import yaml

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.load.report import percentiles
from tests.traffic import rollout, seen
from tests.traffic.broken import USUAL
from tests.traffic.fleet import Replica, await_healthy, await_that, sh
from tests.traffic.load import Result, under_load

_QUIET_SECONDS = 60  # before, for the percentile that those during are compared with
_SOAK_SECONDS = 45  # on probation, and after it: of nine replicas that is long enough for >= 20,000 requests
_DEFAULT_UNIT = "[Service]\nKillMode=control-group\nTimeoutStopSec=90\n"  # systemd's own


@dataclass(frozen=True)
class Client:
    """A load: who asks, how often a second, and options of the client."""

    name: str
    rate: float
    options: tuple[str, ...]


# the long ones are cut short by time: 1,900 tokens of 20 ms stand for the ten minutes of a long generation
FAKE = (
    Client("load", 25, ("--tokens", "2-40*9,100-200*1", "--timeout", "180")),
    Client("demo", 8, ("--tokens", "2-40*9,100-200*1", "--timeout", "180")),
    Client("load", 0.5, ("--tokens", "1500-1900", "--words", "5-20", "--streamed", "1", "--timeout", "300")),
    Client("demo", 0.3, ("--tokens", "1500-1900", "--words", "5-20", "--streamed", "1", "--timeout", "300")),
)
# Three engines share this machine. A byte is a token to the tiny model, and its context holds 1,024: prompts of up to
# 60 leave room for what is asked.
REAL = (Client("load", 1.8, ("--tokens", "4-32*19,800-950*1", "--words", "3-9", "--timeout", "300")),)


def another(setting: Setting) -> dict[str, Any]:
    """Variables that make another release, which serves as well as the one in force."""
    if setting.fleet.fake:
        return {"vllm_environment": {**USUAL, "FAKE_VLLM_TAG": f"{time.time():.0f}"}}
    # one variable more, which does not matter to the engine: without the others three workers share one core
    given = yaml.safe_load((setting.fleet.inventories[0] / "group_vars/llm_servers/vllm.yml").read_text())
    return {"vllm_environment": {**given["vllm_environment"], "LLMOPS_BENCHMARK": f"{time.time():.0f}"}}


def limits(setting: Setting) -> dict[str, float]:
    """Three engines and the load share two cores: whoever has them to itself for a while is no measure of latency."""
    return {} if setting.fleet.fake else {"ttft_seconds": 2, "itl_seconds": 1}


def measure(setting: Setting) -> list[Row]:
    """By ``rollout.yml``, with its gates."""
    wanted = 20000 if setting.fleet.fake else 1000
    given = {
        **another(setting),
        "llmops_rollout_canary": {"soak": 10 if setting.short else _SOAK_SECONDS, **limits(setting)},
        "llmops_rollout_shadow": {"requests": 60, **limits(setting)},
        "llmops_rollout_burn_in": 10 if setting.short else _SOAK_SECONDS,
    }
    before = rollout.releases(setting.fleet)
    with ExitStack() as stack:
        loads = [_enter(stack, client) for client in _clients(setting)]
        time.sleep(_QUIET_SECONDS)  # what is measured before
        begin = time.time()
        done = rollout.play(setting.fleet, given)
        end = time.time()
        stack.close()
    now = rollout.releases(setting.fleet)
    moved = sum(now[one] != before[one] for one in now)
    rows = [row for load in loads for row in load[0].rows]
    during = [row for row in rows if begin <= row["start"] <= end]
    bad = seen.bad(rows)
    cut = sum(row["began"] for row in bad)
    text = f"{len(bad)} failed, {cut} of them truncated, of {len(rows)}; {moved} of {len(now)} replicas moved in "
    text += f"{done.seconds:.0f} s; longest stream {max(row['seconds'] for row in rows):.0f} s"
    held = not bad and moved == len(now) and (len(rows) >= wanted or setting.short)
    quiet = [row for row in rows if row["start"] < begin]
    p99 = "p99 TTFT {:.0f} ms during, {:.0f} ms before".format(*(1000 * _p99(part) for part in (during, quiet)))
    return [
        Row("update of every replica under load", text, f"0 of >= {wanted:,}", held),
        Row("the same, latency", p99),
        _overhead(done, "our own part per replica, beside that load on the same cores"),
    ]


def own_part(setting: Setting) -> list[Row]:
    """The same on a machine that does nothing else: what a rollout takes by itself. Its gates wait for no traffic."""
    given = {
        **another(setting),
        "llmops_rollout_canary": {"soak": 5, "timeout": 5, **limits(setting)},
        "llmops_rollout_shadow": {"requests": 60, **limits(setting)},
        "llmops_rollout_burn_in": 5,
    }
    return [_overhead(rollout.play(setting.fleet, given), "our own part per replica, without load")]


def by_hand(setting: Setting) -> list[Row]:
    """The comparison: systemd's own way to stop, and the next one when the last one answers ``/health``."""
    hosts = {one.host for one in setting.fleet.replicas}
    try:
        for host in hosts:
            place = "/run/systemd/system/vllm@.service.d"
            sh(host, f"mkdir -p {place}; cat > {place}/by-hand.conf; systemctl daemon-reload", given=_DEFAULT_UNIT)
        with ExitStack() as stack:
            loads = [_enter(stack, client) for client in _clients(setting)]
            time.sleep(5 if setting.short else _QUIET_SECONDS)
            for one in setting.fleet.replicas:
                say(f"systemctl restart {one.id}")
                _restart(one)
            stack.close()
    finally:
        for host in hosts:
            sh(host, "rm -rf /run/systemd/system/vllm@.service.d; systemctl daemon-reload")
    await_healthy(setting.fleet, 180)
    rows = [row for load in loads for row in load[0].rows]
    bad = seen.bad(rows)
    text = f"{len(bad)} failed, {sum(row['began'] for row in bad)} of them truncated, of {len(rows)}"
    return [Row("restarted one by one, default unit, behind the same balancers", text)]


def _restart(one: Replica) -> None:
    sh(one.host, f"systemctl restart {one.unit}")
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' http://{one.endpoint}/health || true"
    await_that(lambda: sh(one.host, ask) == "200", f"{one.id} answers", 600)


def _clients(setting: Setting) -> tuple[Client, ...]:
    return FAKE if setting.fleet.fake else REAL


def _enter(stack: ExitStack, client: Client) -> list[Result]:
    return stack.enter_context(under_load("--rate", str(client.rate), *client.options, client=client.name))


def _p99(rows: list[dict[str, Any]]) -> float:
    found = percentiles([row["ttft"] for row in rows if row["ttft"] is not None])
    return found["p99"] if found else 0.0


def _overhead(done: rollout.Rollout, what: str) -> Row:
    seconds = [entry["overhead_seconds"] for entry in done.record["entries"]]
    tasks, calls = max(rollout.remote_tasks(done.printed, entry["id"]) for entry in done.record["entries"])
    text = f"{sorted(seconds)[len(seconds) // 2]:.1f} s (median; {max(seconds):.1f} s at most), {tasks} remote tasks "
    text += f"({calls} calls: most go to both balancers)"
    return Row(what, text, "<= 20 s, <= 15 tasks", max(seconds) <= 20 and tasks <= 15)
