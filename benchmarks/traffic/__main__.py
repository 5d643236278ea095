"""``python -m benchmarks.traffic MEASURE ...|all``: what the traffic tier promises, measured; rows go to RESULTS.md.

Needs a machine that may run the sandbox's containers (see ``make demo``). Without ``--keep`` it begins with fresh
hosts; they stay up afterwards, and `make demo-down` removes them.
"""

from __future__ import annotations

import argparse
import sys
import traceback

from benchmarks import results, site
from benchmarks.traffic import agent200, changes, costs, drains, faulted, holder, pool, stalls, ttft
from benchmarks.traffic.results import FILE, HEAD
from tests.traffic import faults
from tests.traffic.fleet import FAKE, REAL, await_healthy

MEASURES = {
    "drains": drains.measure,
    "changes": changes.measure,
    "dead": faulted.dead,
    "frozen": faulted.frozen,
    "slow": faulted.slow,
    "pool": pool.measure,
    "stalls": stalls.measure,
    "holder": holder.measure,
    "ttft": ttft.measure,
    "costs": costs.measure,
    "agent200": agent200.measure,
}
ON_REAL = ("drains", "dead", "frozen", "holder")


def main() -> int:
    """Measure what the command line asks for; exit status 1 when something promised does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description=__doc__)
    parser.add_argument("measures", nargs="+", choices=[*MEASURES, "all"])
    parser.add_argument("--real", action="store_true", help=f"the demo's fleet, real vLLM: {', '.join(ON_REAL)}")
    parser.add_argument("--form", choices=["lua", "native"], default="", help="of the engine; the role's own otherwise")
    parser.add_argument("--keep", action="store_true", help="the fleet is up: change nothing about it")
    parser.add_argument("--short", action="store_true", help="a tenth of the time, to try the measures themselves")
    arguments = parser.parse_args()
    fleet = REAL if arguments.real else FAKE
    wanted = list(ON_REAL if arguments.real else MEASURES) if "all" in arguments.measures else arguments.measures
    if arguments.real and set(wanted) - set(ON_REAL):
        parser.error(f"on real vLLM only {', '.join(ON_REAL)} can be measured")
    if not arguments.keep:
        site.bring_up(fleet, arguments.form, fresh=True)
    setting, bad = site.Setting(fleet, arguments.short), []
    title = f"{'fake' if fleet.fake else 'real'}, {site.form()}"
    for name in wanted:
        site.say(name)
        try:
            await_healthy(fleet, 180)
            rows = MEASURES[name](setting)
        except Exception:  # noqa: BLE001 - the next measure says something, too
            traceback.print_exc()
            rows = [results.Row("the measure itself", "failed: see its output", holds=False)]
        finally:
            faults.clear(fleet)
        for row in rows:
            site.say(f"{name}: {row.what}: {row.result}{'' if row.holds is None else f' ({row.holds})'}")
        if not arguments.short:
            results.write(FILE, HEAD, name, title, rows, site.versions())
        bad += [name for row in rows if row.holds is False]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
