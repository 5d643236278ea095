"""``python -m benchmarks.rollout MEASURE ...|all``: what rollouts promise, measured; rows go to RESULTS.md.

Needs a machine that may run the sandbox's containers (see ``make demo``). Without ``--keep`` it begins with fresh
hosts; they stay up afterwards, and `make demo-down` removes them.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import traceback

from benchmarks import results, site
from benchmarks.rollout import faults, update
from tests.traffic.fleet import REAL, ROLLED, await_healthy

FILE = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
HEAD = """# What a rollout does

Made by `python -m benchmarks.rollout MEASURE ...`, which replaces the rows of what it measures. Nine replicas of the
fake vLLM in two pools, or three of real vLLM with a tiny model; load comes from the client container, all hosts are
containers on one machine and share its cores. `load` is its load average when the measure ended, with the measure's own
part.
"""
MEASURES = {
    "update": update.measure,
    "by_hand": update.by_hand,
    "broken": faults.broken,
    "killed": faults.killed,
}
ON_REAL = ("update", "by_hand", "killed")


def main() -> int:
    """Measure what the command line asks for; exit status 1 when something promised does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("measures", nargs="+", choices=[*MEASURES, "all"])
    parser.add_argument("--real", action="store_true", help=f"the demo's fleet, real vLLM: {', '.join(ON_REAL)}")
    parser.add_argument("--keep", action="store_true", help="the fleet is up: change nothing about it")
    parser.add_argument("--short", action="store_true", help="a fraction of the time, to try the measures themselves")
    arguments = parser.parse_args()
    fleet = REAL if arguments.real else ROLLED
    wanted = list(ON_REAL if arguments.real else MEASURES) if "all" in arguments.measures else arguments.measures
    if arguments.real and set(wanted) - set(ON_REAL):
        parser.error(f"on real vLLM only {', '.join(ON_REAL)} can be measured")
    if not arguments.keep:
        site.bring_up(fleet, "", fresh=True)
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
        for row in rows:
            site.say(f"{name}: {row.what}: {row.result}{'' if row.holds is None else f' ({row.holds})'}")
        if not arguments.short:
            results.write(FILE, HEAD, name, title, rows, site.versions())
        bad += [name for row in rows if row.holds is False]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
