"""How soon the judge acts, and that it never acts too soon, whenever a fault or a stall begins: 200 moments each."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.unit.agent import simulation
from tests.unit.agent.simulation import STEP, Server, Sim, stall

MOMENTS = [0.05 * number for number in range(200)]  # of the 10 s between two completions
OUT = ("down", "held")


def begun_at(moment: float, idle: bool = False, count: int = 2, seconds: float = 0.05, rate: float = 4.0) -> Sim:
    """A pool in the rhythm of its probes; the moments shift the rhythm against the turns of the simulation, too."""
    sim = Sim(count)
    sim[0].load, sim[0].seconds, sim[0].requests_per_second = 0 if idle else 4, seconds, rate
    sim.now += moment % STEP
    return sim.run(3 + moment).mark()


def seconds_until_out(moment: float, fault: Callable[[Server], None], most: float, idle: bool) -> float:
    sim = begun_at(moment, idle)
    fault(sim[0])
    while sim.inside() == [0, 1]:
        assert sim.now - sim.began < most + 5, f"in rotation still; the fault began at {moment:.2f} s"
        sim.run(STEP)
    assert sim.inside() == [1]
    return sim.now - sim.began


@pytest.mark.parametrize(
    ("fault", "most"),
    [
        (simulation.refuse, 1.0),
        (simulation.vanish, 2.0),
        (simulation.freeze_engine, 6.0),
        (simulation.freeze_idle_engine, 12.0),
        (simulation.freeze_idle_as_vllm, 12.0),
        (simulation.freeze_process, 6.0),
        (simulation.hang, 12.0),
        (simulation.hang_idle, 12.0),
        (simulation.fail, 11.0),
        (simulation.babble, 11.0),
        (simulation.idle_503, 11.0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_takes_its_replica_out_in_time_whenever_it_begins(fault, most):
    idle = "idle" in fault.__name__
    worst = max((seconds_until_out(moment, fault, most, idle), moment) for moment in MOMENTS)
    print(f"{fault.__name__}: {worst[0]:.1f} s, begun at {worst[1]:.2f}")
    assert worst[0] <= most, f"begun at {worst[1]:.2f} s"


@pytest.mark.parametrize(
    ("what", "lasting"),
    [(what, lasting) for what in ("streams", "first tokens", "queue") for lasting in (1.0, 3.0)] + [("streams", 8.0)],
)
def test_a_hang_of_new_work_is_noticed_in_time_though_old_work_goes_on_for_a_while(what, lasting):
    """What was accepted before the fault looks like life: streams that step, first tokens, a queue that shrinks."""
    for moment in MOMENTS[::5]:
        sim = begun_at(moment)

        def each(sim: Sim = sim) -> None:
            over = sim.now - sim.began > lasting
            sim[0].load = 0 if over and what == "streams" else 4
            sim[0].waiting = 3 if not over and what == "queue" else 0
            if not over and what != "streams":
                sim[0].began()

        simulation.hang(sim[0])
        sim.run(15, each)
        assert sim.inside() == [1], f"begun at {moment:.2f} s"


@pytest.mark.parametrize("what", ["engine", "process"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_a_stall_of_a_slow_model_with_few_new_requests_removes_nobody(what, rate):
    """The probe that was stalled needs 0.8 s besides and times out, and nobody else shows that new work is taken."""
    for moment in MOMENTS[::2]:
        sim = begun_at(moment, count=1, seconds=0.8, rate=rate)
        sim.run(12, stall(sim, what, 0, 3.5))
        assert [row for row in sim.changes if row[3] in OUT] == [], f"begun at {moment:.2f} s"


@pytest.mark.parametrize("what", ["engine", "process"])
@pytest.mark.parametrize("idle", [False, True])
def test_a_stall_of_three_and_a_half_seconds_removes_nobody_whenever_it_begins(what, idle):
    for moment in MOMENTS:
        sim = begun_at(moment, idle, count=1)
        sim.run(12, stall(sim, what, 0, 3.5))
        assert [row for row in sim.changes if row[3] in OUT] == [], f"begun at {moment:.2f} s"


@pytest.mark.parametrize("what", ["engine", "process"])
def test_a_stall_of_six_seconds_in_which_nothing_is_generated_is_always_noticed(what):
    for moment in MOMENTS:
        sim = begun_at(moment)
        sim.run(6, stall(sim, what, 0, 6))
        assert sim.inside() == [1], f"begun at {moment:.2f} s"


@pytest.mark.parametrize("before", [0.5, 1.5, 3.0])
def test_a_stall_right_after_load_began_removes_nobody(before):
    """Who came during the stall waited up to 3.5 s, and no good answers of before make up for it in the average."""
    for moment in MOMENTS[::10]:
        sim = begun_at(moment, idle=True, count=3)
        ended = False

        def each(sim: Sim = sim) -> None:
            nonlocal ended
            second = sim.now - sim.began
            still = before <= second < before + 3.5
            for number in range(3):
                sim[number].load = 4
            sim[0].engine = not still
            if second >= before + 3.5 and not ended:
                ended = True
                sim[0].requests_per_second = 1.0  # its requests run on, so the balancers send new ones elsewhere
                for waited in range(14):
                    sim[0].ttft_count += 1
                    sim[0].ttft_sum += 0.05 + waited / 4

        sim.run(20, each)
        assert [row for row in sim.changes if row[3] in OUT] == [], f"begun at {moment:.2f} s"


@pytest.mark.parametrize("stalling", [1, 3])
def test_ten_minutes_of_stalls_under_bursty_load_remove_nobody(stalling):
    dice, sim = random.Random(stalling), begun_at(0, count=3)
    stalls: dict[int, tuple[float, str]] = {}

    def each() -> None:
        for number in range(stalling):
            server, (begin, what) = sim[number], stalls.get(number, (0.0, ""))
            if sim.now > begin + 3.5:
                stalls[number] = (sim.now + dice.uniform(4, 16), dice.choice(["engine", "process"]))
            still = begin <= sim.now < begin + 3.5
            server.engine, server.answers = not still, not (still and what == "process")
            server.load = 0 if sim.now % 7 < 1.5 else 4
            behind = begin <= sim.now < begin + 5
            server.waiting, server.queue_seconds = (6, 1.5) if behind else (0, 0.0)

    sim.run(600, each)
    assert [row for row in sim.changes if row[3] in (*OUT, "panic")] == []
