"""An hour of steady load: nobody is woken. And on the way: what it cost, how many series, how fast a target is seen."""

from __future__ import annotations

import time

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.traffic import pages
from tests.traffic.fleet import await_healthy, await_that, sh
from tests.traffic.load import under_load

_LOAD = {True: ("--rate", "25", "--tokens", "2-40*9,100-200*1"), False: ("--rate", "1.5", "--tokens", "4-24")}
_PLACE = "/etc/prometheus/targets/replicas.json"


def hour(setting: Setting) -> list[Row]:
    """No alert but the watchdog, page or ticket."""
    seconds = 120 if setting.short else 3600
    await_healthy(setting.fleet, 180)
    with pages.pager() as pager, under_load(*_LOAD[setting.fleet.fake], "--timeout", "120"):
        begin = time.time()
        while time.time() < begin + seconds:
            time.sleep(60)
            say(f"{time.time() - begin:.0f} s; firing: {', '.join(sorted(pages.firing('Watchdog'))) or 'none'}")
        came = [one for path in ("/page", "/ticket") for one in pager.came(begin, path)]
        watchdog = len(pager.came(begin, "/watchdog"))
    names = sorted({one.name for one in came})
    text = (
        f"{len(names)} alerts ({', '.join(names) or 'none'}) in {seconds / 60:.0f} minutes; {watchdog} of the watchdog"
    )
    return [Row("false alarms under steady load", text, "0 besides the watchdog", not names and watchdog > 0)]


def target(setting: Setting) -> list[Row]:
    """From the file to the first sample, without a restart."""
    one, before = setting.pick(0), sh("mon1", f"cat {_PLACE}")
    write = f"cat > {_PLACE}.tmp && chmod 644 {_PLACE}.tmp && mv {_PLACE}.tmp {_PLACE}"
    found = []
    for turn in range(1 if setting.short else 5):
        entry = f'{{"targets": ["{one.endpoint}"], "labels": {{"replica": "new/r{turn}", "host": "new"}}}}'
        begin = time.time()
        sh("mon1", write, given=f"{before.rstrip().rstrip(']')}, {entry}]")
        series = f'up{{job="vllm",replica="new/r{turn}"}} == 1'
        await_that(lambda seen=series: pages.value(seen), "the new target is up", 60)
        found.append(time.time() - begin)
        sh("mon1", write, given=before)
    text = f"{sorted(found)[len(found) // 2]:.1f} s (median of {len(found)}; {max(found):.1f} s at most)"
    return [Row("new target in the file to its first sample", text, "<= 15 s", max(found) <= 15)]


def series(setting: Setting) -> list[Row]:
    """What one replica adds to Prometheus by its own /metrics."""
    await_healthy(setting.fleet, 180)
    counts = pages.value('count by (replica) ({job="vllm",replica!=""})')
    most = max(counts.values())
    text = f"{most:.0f} (of {len(counts)} replicas: {min(counts.values()):.0f} to {most:.0f})"
    return [Row("series per replica, classic", text, "<= 420", most <= 420)]
