"""Every replica in turn is drained, restarted and put back under load."""

from __future__ import annotations

import time

from benchmarks.results import Row
from benchmarks.site import Setting, say
from tests.traffic import seen
from tests.traffic.fleet import BALANCERS, await_that, row, sh
from tests.traffic.load import under_load

_READY_SECONDS = 300


def measure(setting: Setting) -> list[Row]:
    """Go on with a second round, and so on, until enough requests were sent."""
    rate, wanted = (100, 20000) if setting.fleet.fake else (3, 500)
    wanted = wanted // 10 if setting.short else wanted
    options = ["--rate", str(rate), "--tokens", "2-40*9,100-200*1" if setting.fleet.fake else "2-24"]
    begin, drains = time.monotonic(), 0
    with under_load(*options, "--timeout", "300") as loads:
        while not drains or (time.monotonic() - begin) * rate < wanted * 1.05:
            for replica in setting.fleet.replicas:
                say(f"drain, restart, undrain {replica.id}")
                setting.fleet.playbook("drain", "-e", f"llmops_target={replica.id}")
                sh(replica.host, f"systemctl restart {replica.unit}", timeout=_READY_SECONDS)
                ask = f"curl -s -o /dev/null -w '%{{http_code}}' http://{replica.endpoint}/health || true"
                await_that(lambda one=replica, words=ask: sh(one.host, words) == "200", "it runs", _READY_SECONDS)
                setting.fleet.playbook("undrain", "-e", f"llmops_target={replica.id}")
                back = [lambda one=replica, name=name: row(name, one)["in_rotation"] for name in BALANCERS]
                await_that(lambda asked=back: all(ask() for ask in asked), "it is back in rotation", 90)
                drains += 1
    rows = loads[0].rows
    bad = seen.bad(rows)
    cut = [entry for entry in bad if entry["began"]]
    result = f"{len(bad)} failed, {len(cut)} of them truncated, of {len(rows)} in {drains} drains with restart"
    return [Row("drain, restart, undrain", result, f"0 of >= {wanted:,}", not bad and len(rows) >= wanted)]
