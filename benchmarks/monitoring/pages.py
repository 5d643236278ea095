"""Every alert that wakes somebody, by a real fault and to a real receiver; and how long that takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.traffic import faults, pages
from tests.traffic.fleet import BALANCERS, Replica, await_healthy, await_that, sh
from tests.traffic.load import under_load

_MONITOR = "mon1"
_TARGETS = "/etc/prometheus/targets/replicas.json"
_NUMBERS = "/var/lib/prometheus/node-exporter/llmops.prom"
_LOAD = ("--rate", "10", "--tokens", "4-40", "--timeout", "60")
_TURNS = 5
# Why alerts of a group that make a ticket are left out.
_NOT_PROVOKED = {
    "gpu": "no host has a GPU",
    "cost": "they need hours or days of spending, see the measure spend",
    "slo": "they need a day or three of failures",
    "rollout": "no rollout is played",
    "host": "the hosts share disk, memory and clock of one machine",
    "latency": "they need five minutes of a slow pool",
    "saturation": "they need five minutes of a full pool",
}


@dataclass(frozen=True)
class Case:
    """What is broken within the block, the alert that must come, and within how many seconds."""

    name: str
    broken: Callable[[Setting], AbstractContextManager[None]]
    seconds: float
    labels: dict[str, str] = field(default_factory=dict)


@contextmanager
def _stopped(unit: str, *hosts: str) -> Iterator[None]:
    for host in hosts:
        sh(host, f"systemctl stop {unit}")
    try:
        yield
    finally:
        for host in hosts:
            sh(host, f"systemctl start {unit}")


@contextmanager
def _pool_stopped(setting: Setting) -> Iterator[None]:
    with ExitStack() as stack:
        for one in setting.fleet.replicas:
            stack.enter_context(_stopped(one.unit, one.host))
        yield


@contextmanager
def _rewritten(host: str, place: str, text: Callable[[str], str]) -> Iterator[None]:
    """A file holds something else within the block."""
    before = sh(host, f"cat {place}")
    write = f"cat > {place}.tmp && chmod --reference={place} {place}.tmp && mv {place}.tmp {place}"
    sh(host, write, given=text(before))
    try:
        yield
    finally:
        sh(host, write, given=before)


@contextmanager
def _another_model(one: Replica) -> Iterator[None]:
    place = sh(one.host, f"readlink -f /etc/vllm/{one.name}/current/config.yaml").strip()
    with _rewritten(one.host, place, lambda text: text.replace("tiny", "other")):
        sh(one.host, f"systemctl restart {one.unit}")
        yield
    sh(one.host, f"systemctl restart {one.unit}")


@contextmanager
def _broken_streams(setting: Setting) -> Iterator[None]:
    with ExitStack() as stack:
        for one in setting.fleet.replicas:
            stack.enter_context(faults.faulty(one, "truncate"))
        stack.enter_context(under_load(*_LOAD, "--streamed", "0.2"))
        yield


@contextmanager
def _xid(host: str) -> Iterator[None]:
    """As nvidia_gpu_exporter tells it, by way of the textfile collector: no host here has a GPU."""
    place = "/var/lib/prometheus/node-exporter/xid.prom"
    name = "nvidia_smi_xid_last_timestamp_seconds"
    text = f'# TYPE {name} gauge\n{name}{{uuid="fake",xid="79"}} {time.time():.0f}\n'
    sh(host, f"cat > {place}.tmp && mv {place}.tmp {place}", given=text)
    try:
        yield
    finally:
        sh(host, f"rm {place}")


def _more_wanted(text: str) -> str:
    lines = [line if "replicas_min{" not in line else line.rpartition(" ")[0] + " 9" for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def _cases(setting: Setting) -> tuple[Case, ...]:
    one, host = setting.pick(0), setting.pick(1).host
    other = BALANCERS[1]
    return (
        Case("LLMReplicaDown", lambda _: _stopped(one.unit, one.host), 90, {"replica": one.id}),
        Case("LLMEngineStuck", lambda _: faults.faulty(one, "freeze_engine"), 90, {"replica": one.id}),
        Case("LLMModelNotServed", lambda _: _another_model(one), 150, {"replica": one.id}),
        Case("LLMPoolDown", _pool_stopped, 90, {"pool": setting.fleet.pool}),
        Case("LLMServiceDown", lambda _: _stopped("nginx", *BALANCERS), 90),
        Case("LLMBalancerDown", lambda _: _stopped("nginx", other), 150, {"host": other}),
        Case("LLMNoTargets", lambda _: _rewritten(_MONITOR, _TARGETS, lambda _text: "[]\n"), 210),
        Case("LLMPoolBelowMinimum", lambda _: _rewritten(_MONITOR, _NUMBERS, _more_wanted), 210),
        Case("LLMGpuXidCritical", lambda _: _xid(host), 60, {"xid": "79"}),
        Case("LLMErrorRateHigh", _broken_streams, 600, {"pool": setting.fleet.pool}),
        Case("LLMErrorBudgetBurn", _broken_streams, 600, {"pool": setting.fleet.pool}),
    )


def every(setting: Setting) -> list[Row]:
    """Each alert that pages, once; a row for each, and one that says whether none is left out."""
    rows, fired = [], set()
    started = time.time()
    with pages.pager() as pager:
        for case in _cases(setting):
            say(case.name)
            await_healthy(setting.fleet, 180)
            await_that(lambda: not pages.firing("Watchdog") & _paging().keys(), "no paging alert fires", 400)
            begin = time.time()
            try:
                with case.broken(setting):
                    page = pager.await_page(case.name, begin, case.seconds, **case.labels)
            except AssertionError as error:
                rows.append(Row(case.name, f"did not come: {str(error)[:120]}", "it comes", holds=False))
                continue
            others = {one.name for one in pager.came(begin) if one.status == "firing"} - {case.name}
            fired.add(case.name)
            text = f"came after {page.at - begin:.0f} s" + (f"; besides: {', '.join(sorted(others))}" if others else "")
            rows.append(Row(case.name, text, "it comes", holds=True))
    missing = sorted(_paging().keys() - fired)
    rows.append(Row("all that page", f"missing: {', '.join(missing) or 'none'}", "none", holds=not missing))
    return [*rows, *_tickets(started)]


def _tickets(since: float) -> list[Row]:
    """What the same faults brought besides, and why the other alerts did not fire."""
    seconds = time.time() - since
    told = pages.value(f'max_over_time(ALERTS{{severity="ticket",alertstate="firing"}}[{seconds:.0f}s])')
    fired = {dict(labels)["alertname"] for labels in told}
    groups: dict[str, list[str]] = {}
    for name, group in sorted(_alerts("ticket").items()):
        if name not in fired:
            groups.setdefault(_NOT_PROVOKED.get(group, "no fault here is theirs"), []).append(name)
    return [
        Row("tickets that came besides", ", ".join(sorted(fired)) or "none"),
        *(Row("tickets that did not come", f"{why}: {', '.join(names)}") for why, names in groups.items()),
    ]


def _paging() -> dict[str, str]:
    return _alerts("page")


def _alerts(severity: str) -> dict[str, str]:
    """The group of each alert."""
    told = [rule for rule in pages.rules() if rule["type"] == "alerting"]
    return {rule["name"]: rule["labels"]["group"] for rule in told if rule["labels"].get("severity") == severity}


def times(setting: Setting) -> list[Row]:
    """From the fault to the page: a replica that crashes, an engine that stands still, several times each."""
    crashed, frozen = setting.pick(0), setting.pick(1)
    turns = 1 if setting.short else _TURNS
    with pages.pager() as pager, under_load("--rate", "2", "--tokens", "4-16", "--timeout", "180"):
        downs = [_page_of_crash(pager, setting, crashed) for _turn in range(turns)]
        stuck = [_page_of_freeze(pager, setting, frozen) for _turn in range(turns)]
    return [
        Row("crash (SIGKILL) to page", _seconds(downs), "<= 45 s", max(downs) <= 45),
        Row("frozen engine (SIGSTOP) to page", _seconds(stuck), "<= 60 s", max(stuck) <= 60),
    ]


def _page_of_crash(pager: pages.Pager, setting: Setting, one: Replica) -> float:
    _await_quiet(pager, setting)
    begin = time.time()
    faults.kill_unit(one.host, one.unit)
    return pager.await_page("LLMReplicaDown", begin, 120, replica=one.id).at - begin


def _page_of_freeze(pager: pages.Pager, setting: Setting, one: Replica) -> float:
    _await_quiet(pager, setting)
    begin = time.time()
    with faults.frozen(one, faults.ENGINE):
        return pager.await_page("LLMEngineStuck", begin, 120, replica=one.id).at - begin


def _await_quiet(pager: pages.Pager, setting: Setting) -> None:
    """All is well, and Alertmanager has told so: the next page is one of a new group."""
    await_healthy(setting.fleet, 300)
    # before somebody was on call, notifications failed
    await_that(lambda: not pages.firing("Watchdog", "LLMNotificationsFailing"), "no alert fires", 400)
    await_that(lambda: not _open(pager), "every page was told to be over", 200)


def _open(pager: pages.Pager) -> set[str]:
    last = {json.dumps(page.labels, sort_keys=True): page.status for page in pager.came()}
    return {labels for labels, status in last.items() if status == "firing"}


def _seconds(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.0f} s (median of {len(values)}; {ordered[0]:.0f} to {ordered[-1]:.0f})"
