"""Releases that are broken, and controllers that die in the middle."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.results import Row
from benchmarks.rollout.update import another
from benchmarks.site import Setting, say
from tests.traffic import rollout, seen
from tests.traffic.broken import CASES
from tests.traffic.fleet import await_healthy, await_that, holder
from tests.traffic.load import under_load

_CANARY = "gpu1/r0"
_QUICK = {
    "llmops_rollout_shadow": {"requests": 0},
    "llmops_rollout_burn_in": 5,
    "llmops_rollout_canary": {"soak": 5, "timeout": 180, "samples": 10, "ignore": 5},
}


def _load(setting: Setting) -> tuple[str, ...]:
    # so few that the machine they share still plans and stages a rollout in a minute
    rate, tokens = ("15", "2-40*9,100-200*1") if setting.fleet.fake else ("1.5", "4-32")
    return ("--rate", rate, "--tokens", tokens, "--words", "5-20", "--timeout", "180")


def broken(setting: Setting) -> list[Row]:
    """Every way to be broken: nobody but the canary is touched, and no client notices."""
    found = []
    for name, case in CASES.items():
        say(name)
        before, old = rollout.processes(setting.fleet), rollout.releases(setting.fleet)
        with under_load(*_load(setting)) as loads:
            done = rollout.play(setting.fleet, {"llmops_rollout_pools": ["chat-fake"], **case.given()}, expected=2)
        await_healthy(setting.fleet, 120)
        touched = {one for one, process in rollout.processes(setting.fleet).items() if process != before[one]}
        back = rollout.releases(setting.fleet) == old
        steps = {step["name"]: step["seconds"] for step in done.entry(_CANARY)["steps"]}
        seconds, noticed = steps.pop("go_back"), list(steps)[-1]
        bad, requests = seen.bad(loads[0].rows), len(loads[0].rows)
        text = (
            f"{len(bad)} failed of {requests}; noticed in the step {noticed} after {sum(steps.values()):.0f} s, back "
        )
        text += f"after {seconds:.0f} s more; touched: {', '.join(sorted(touched)) or 'nobody'}"
        holds = not bad and touched <= {_CANARY} and back
        found.append(Row(name, text, "0 failed, one replica touched, old release", holds))
    return found


@dataclass(frozen=True)
class _Turn:
    """What came of a controller that was killed: who was left drained, and the run after it."""

    left: list[str]
    green: bool
    rows: list[dict[str, Any]]


def killed(setting: Setting) -> list[Row]:
    """SIGKILL to the controller at random moments; the next run finishes what it began."""
    wanted = (2 if setting.short else 20) if setting.fleet.fake else 3
    dice, turns = random.Random(1), []
    for number in range(1, wanted + 1):
        moment = dice.uniform(0, 75 if setting.fleet.fake else 240)
        turn = _turn(setting, moment)
        turns.append(turn)
        told = f"killed {moment:.0f} s after the first drain, left {turn.left}; next run green: {turn.green}; "
        say(f"turn {number}: {told}{len(seen.bad(turn.rows))} failed of {len(turn.rows)}")
    rows = [row for turn in turns for row in turn.rows]
    bad, green = len(seen.bad(rows)), sum(turn.green for turn in turns)
    text = f"{bad} failed of {len(rows)}; the next run was green {green} times of {wanted}; somebody was left "
    text += f"drained {sum(bool(turn.left) for turn in turns)} times"
    bound = f"0 failed, green {wanted} times of {wanted}"
    return [Row("controller killed at random moments", text, bound, not bad and green == wanted)]


def _turn(setting: Setting, moment: float) -> _Turn:
    # of the fakes the pool of three, whose client is another one: a turn lasts as long as all of them take
    pool, client = ({"llmops_rollout_pools": ["short-fake"]}, "demo") if setting.fleet.fake else ({}, "load")
    variables = {**_QUICK, **another(setting), **pool}
    with under_load(*_load(setting), client=client) as loads:
        with rollout.running(setting.fleet, variables) as run:
            # real engines, which serve meanwhile, let the check of a candidate take minutes
            await_that(lambda: rollout.drained(holder()), "the rollout has drained somebody", 900)
            time.sleep(moment)
            run.kill()
        left = rollout.drained(holder())
        done = rollout.play(setting.fleet, variables, expected=None)
    await_healthy(setting.fleet, 180)
    return _Turn(left, done.record.get("outcome", "nothing") in ("done", "nothing"), loads[0].rows)
