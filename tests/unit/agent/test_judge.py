"""The judge of a pool, with simulated replicas, a simulated prober, and a clock that the test moves."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, Scrape

from tests.unit.agent import simulation
from tests.unit.agent.simulation import LIMITS, Server, Sim, fail, freeze_engine, pool, refuse, stall, vanish


def test_a_healthy_pool_stays_as_it_is():
    sim = pool().run(60)
    assert sim.inside() == [0, 1, 2, 3]
    assert sim.changes == []


FAULTS = [
    (refuse, 2.0, "fact", "connections are refused"),
    (vanish, 2.0, "judgement", "connects get no answer"),
    (freeze_engine, 6.0, "judgement", "wedged: no step"),
    (simulation.freeze_idle_engine, 12.0, "judgement", "wedged:"),
    (simulation.freeze_process, 6.0, "judgement", "no answer for"),
    (fail, 11.0, "judgement", "HTTP 500"),
    (simulation.refuse_key, 11.0, "judgement", "HTTP 401"),
    (simulation.babble, 11.0, "judgement", "nonsense"),
    (simulation.idle_503, 11.0, "judgement", "HTTP 503 though nothing runs"),
    (simulation.slow_down, 20.0, "judgement", "slow:"),
    (simulation.hang, 12.0, "judgement", "takes no new work: a completion got no token in 4 s"),
    (simulation.hang_idle, 12.0, "judgement", "wedged:"),
]


@pytest.mark.parametrize(
    ("fault", "seconds", "kind", "words"), FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("offset", [0, 0.35, 3.1, 7.7])
def test_a_fault_takes_its_replica_out_in_time_and_its_end_brings_it_back(fault, seconds, kind, words, offset):
    sim = pool(settle=15 + offset)
    before = dataclasses.replace(LIMITS)
    fault(sim[0])
    sim.run(seconds + 1)
    assert sim.out_after() <= seconds
    assert sim.inside() == [1, 2, 3]
    verdict = sim.judge.verdict("g0/r0")
    assert (verdict.health, verdict.kind) == ("down", kind)
    assert words in verdict.reason
    assert before == LIMITS
    fresh = sim.servers["g0/r0"] = Server()
    fresh.steps = sim.mark()[1].steps
    sim.run(15)
    assert sim.inside() == [0, 1, 2, 3]
    verdict = sim.judge.verdict("g0/r0")
    assert (verdict.health, verdict.reason, verdict.wedged_since) == ("up", "", None)
    assert verdict.since > 1e9, "slow start counts from the return"


@pytest.mark.parametrize("offset", [x * 0.15 for x in range(0, 70, 5)])
def test_stalls_under_a_queue_remove_nobody(offset):
    """At 80 % load a stall leaves a queue behind: probes then wait in it, and steps go on."""
    sim = pool(3, settle=12)

    def each() -> None:
        stall(sim, "engine", offset, 3.5)()
        after = sim.now - sim.began - offset
        sim[0].waiting = 8 if 0.5 < after < 9 else 0
        sim[0].queue_seconds = 3.0 if 0.5 < after < 9 else 0.0

    sim.run(30, each)
    assert [row for row in sim.changes if row[3] == "down"] == []


def test_a_busy_pool_is_degraded_at_most():
    sim = pool()
    for server in sim.servers.values():
        server.status, server.waiting = 503, 30
    sim.run(60)
    assert sim.inside() == [0, 1, 2, 3]
    verdict = sim.judge.verdict("g0/r0")
    assert (verdict.health, verdict.weight) == ("degraded", 1.0)
    assert "busy" in verdict.reason


def test_a_slow_pool_keeps_everybody_and_one_slow_replica_gets_half():
    sim = pool()
    for server in sim.servers.values():
        server.seconds = 2.0
    sim.run(60)
    assert sim.inside() == [0, 1, 2, 3]
    assert {sim.judge.verdict(ident).weight for ident in sim.servers} == {1.0}
    sim = pool()
    sim[0].seconds = 0.7
    sim.run(30)
    assert sim.inside() == [0, 1, 2, 3]
    verdict = sim.judge.verdict("g0/r0")
    assert (verdict.health, verdict.weight) == ("degraded", 0.5)
    assert "ms to the first token" in verdict.reason


def test_time_in_the_queue_is_no_slowness():
    sim = pool()
    sim[0].queue_seconds, sim[0].waiting = 2.5, 5
    sim.run(60)
    assert sim.inside() == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 1), (6, 2), (8, 2), (9, 3)])
def test_judgements_stop_at_the_floor(count, most):
    sim = pool(count)
    for number in range(count // 2):
        fail(sim[number])
    if count == 1:
        fail(sim[0])
    sim.run(40)
    assert len(sim.inside()) == count - min(most, max(1, count // 2))
    held = [ident for ident in sim.servers if sim.judge.verdict(ident).held]
    assert len(held) == max(1, count // 2) - min(most, max(1, count // 2))


def test_facts_know_no_floor():
    sim = pool()
    for number in range(4):
        refuse(sim[number])
    sim.run(3)
    assert sim.inside() == []


def test_silence_of_the_whole_host_becomes_a_fact():
    sim = pool(2)
    for number in range(2):
        vanish(sim[number])
    sim.run(3)
    assert sim.inside() == [0, 1], "nobody better is there"
    sim.run(5)
    assert sim.inside() == []
    assert "no sign of life" in sim.judge.verdict("g0/r0").reason


def test_a_pool_that_looks_bad_as_a_whole_is_left_alone():
    """The probe asks for a model that is not there, say: that is no reason to lose a third of the pool."""
    sim = pool()
    for server in sim.servers.values():
        server.status = 404
    sim.run(40)
    assert sim.inside() == [0, 1, 2, 3]
    assert sim.judge.panic
    assert ("", "calm", "panic") in [row[1:] for row in sim.changes]
    for server in sim.servers.values():
        server.status = 200
    sim.run(10)
    assert not sim.judge.panic
    assert {sim.judge.verdict(ident).health for ident in sim.servers} == {"up"}


def test_in_a_panic_a_wedged_replica_stays_out():
    sim = pool(3)
    freeze_engine(sim[0])
    sim.run(8)
    assert sim.inside() == [1, 2]
    fail(sim[1])
    fail(sim[2])
    sim.run(20)
    assert sim.judge.panic
    assert sim.inside() == [1, 2]


def test_wedged_since_counts_from_the_last_step():
    sim = pool()
    freeze_engine(sim[0])
    sim.run(30)
    verdict = sim.judge.verdict("g0/r0")
    assert verdict.wedged_since is not None
    assert 27 < sim.now + 1e9 - verdict.wedged_since < 31
    sim[0].engine = True
    sim.run(3)
    assert sim.judge.verdict("g0/r0").wedged_since is None


def test_drained_replicas_get_no_completion_and_no_part_of_the_floor():
    sim = pool(3)
    for ident in ("g1/r0", "g2/r0"):
        sim.judge.administer(ident, "drained")
    assert sim.judge.due("g1/r0").completion is None
    fail(sim[0])
    sim.run(30)
    assert sim.judge.verdict("g0/r0").held, "the only active one is never judged out"
    freeze_engine(sim[1])
    sim.run(10)
    assert sim.judge.verdict("g1/r0").health == "down", "a drained one is still looked at"


def test_one_that_flaps_must_be_good_for_longer():
    sim = pool()
    back = []
    for _turn in range(5):
        sim[0].status = 500
        sim.run(20).mark()
        sim[0].status = 200
        sim.run(15)
        back.append(next(at for at, who, _b, after in sim.changes if who == "g0/r0" and after == "up"))
    assert max(back[:2]) < 5 < min(back[3:])


def test_what_the_engine_saw_brings_a_probe_at_once():
    sim = pool(settle=12)
    fail(sim[0])
    sim.judge.observed("g0/r0", Observed(good=10, failed=1, failed_in_row=1))
    sim.run(2)
    assert sim.out_after() < 1.5


def test_a_new_replica_needs_one_good_round_and_an_unknown_one_none_to_stay():
    sim = Sim(2, remembered=False)
    assert sim.inside() == []
    assert sim.judge.verdict("g0/r0").reason == "not yet probed"
    sim.run(4)
    assert sim.inside() == [0, 1]
    sim = Sim(2, remembered=True)
    assert sim.inside() == [0, 1]
    assert sim.judge.verdict("g0/r0").since == 0


def test_memory_that_nobody_should_hold_degrades():
    sim = pool()
    sim[0].load, sim[0].kv_usage = 0, 0.9
    sim.run(15)
    assert "KV cache is held by nobody" in sim.judge.verdict("g0/r0").reason
    sim[1].memory = 1 << 30
    sim.run(70)
    sim[1].memory = 3 << 30
    sim.run(5)
    assert "process memory grew from 1024 to 3072 MiB" in sim.judge.verdict("g1/r0").reason
    assert sim.inside() == [0, 1, 2, 3]


def test_nonsense_raises_nothing():
    sim = pool(2)
    for ident in ("g0/r0", "unknown"):
        sim.judge.connected(ident, "broken")
        sim.judge.observed(ident, Observed(-1, -5, 99))
        sim.judge.completed(ident, "ok", 1e300, -7, sim.now + 99)
        strange = Scrape(-3, 10**18, -1, 1e9, -5, 1e300, -4, -1e300, 10**18)
        for scrape in (strange, Scrape(0, 0, 0, 0.0, None, 0.0, 0, 0.0, 0), strange):
            sim.judge.scraped(ident, scrape, "ok", sim.now)
        sim.judge.scraped(ident, None, "garbage", sim.now)
        sim.judge.tick()
    sim.run(20)
    assert sim.inside() == [0, 1]
    assert sim.judge.numbers("g0/r0")["connect"] == "ok"


# --- what the agent itself missed


@pytest.mark.parametrize("seconds", [1.2, 6.0, 600.0])
@pytest.mark.parametrize("members", [1, 3])
def test_what_the_agent_slept_through_is_not_held_against_a_replica(seconds, members):
    sim = pool(members)
    sim.sleep(seconds).run(0.2).sleep(seconds).run(15)
    assert sim.changes == []
    assert sim.inside() == list(range(members))


def test_a_host_that_was_gone_before_the_agent_slept_is_a_fact_only_after_five_seconds_awake():
    sim = pool(2)
    for number in range(2):
        vanish(sim[number])
    sim.run(3).sleep(60).run(3)
    assert sim.inside() == [0, 1]
    sim.run(3)
    assert sim.inside() == []


@pytest.mark.parametrize("fault", [refuse, vanish, freeze_engine, simulation.freeze_process, simulation.hang])
def test_an_agent_that_woke_notices_what_broke_meanwhile(fault):
    sim = pool()
    fault(sim[0])
    sim.sleep(30).mark().run(12)
    assert sim.inside() == [1, 2, 3]


def test_a_completion_in_which_the_agent_slept_is_not_slow():
    sim = pool(2)
    sim[0].load = 0
    sim.run(15).mark()
    began = sim.now
    sim.now += 6
    sim.judge.completed("g0/r0", "ok", 6.0, 200, began)
    sim.run(5)
    assert sim.changes == []


# --- new work


def test_long_prompts_before_which_a_probe_waits_are_no_hang():
    """An engine that works on long prompts makes steps and no first token; the probe waits, and leaves the queue."""
    sim = pool()
    sim[0].requests_per_second = 0.0

    def each() -> None:
        long = 3 <= (sim.now - sim.began) % 14 < 12
        sim[0].queue_seconds, sim[0].waiting = (20.0 if long else 0.0), (1 if long and sim[0].own else 0)

    sim.run(120, each)
    assert sim.inside() == [0, 1, 2, 3]
    assert [row for row in sim.changes if row[3] == "down"] == []


def test_one_late_completion_while_others_are_served_is_not_enough():
    sim = pool()

    def each() -> None:
        sim[0].queue_seconds = 9.0 if sim[0].asked["complete"] <= asked + 1 else 0.0

    asked = sim[0].asked["complete"]
    sim.run(30, each)
    assert sim[0].asked["complete"] >= asked + 3
    assert sim.inside() == [0, 1, 2, 3]
    assert [row for row in sim.changes if row[3] == "down"] == []


def test_probes_are_few():
    sim = pool(2)
    sim[1].load = 0
    before = [dict(sim[number].asked) for number in range(2)]
    sim.run(300)
    busy, idle = ({kind: sim[n].asked[kind] - before[n][kind] for kind in before[n]} for n in range(2))
    assert busy["complete"] <= 30, "first tokens of clients show that it generates"
    assert idle["complete"] <= 41
    assert max(busy["scrape"], idle["scrape"]) <= 205
    assert max(busy["connect"], idle["connect"]) <= 601


def test_completions_of_a_pool_are_spread():
    sim = Sim(40)
    due = [sim.judge.due(ident).completion - sim.now for ident in sim.servers]
    assert len({int(seconds) for seconds in due}) == 8
    assert max(sum(int(seconds) == second for seconds in due) for second in range(8)) <= 12


# --- full


def test_a_pool_that_is_full_when_the_agent_starts_is_served_all_the_same():
    for status, queue in ((503, 0.0), (200, 30.0)):
        sim = Sim(3, remembered=False)
        for server in sim.servers.values():
            server.status, server.queue_seconds, server.waiting = status, queue, 20
        sim.run(30)
        assert sim.inside() == [0, 1, 2]


def test_one_that_is_slow_does_not_return_because_it_is_full():
    sim = pool()
    simulation.slow_down(sim[0])
    sim.run(20)
    assert sim.inside() == [1, 2, 3]
    sim[0].status, sim[0].waiting = 503, 20
    sim.run(20)
    assert sim.inside() == [1, 2, 3]


def test_one_that_stands_still_does_not_return_because_it_is_full():
    sim = pool()
    freeze_engine(sim[0])
    sim.run(10).mark()
    sim[0].status, sim[0].waiting = 503, 20
    sim.run(20)
    assert sim.changes == []
    assert sim.inside() == [1, 2, 3]


def test_503_while_a_burst_fills_an_idle_replica_is_no_failure():
    sim = pool(settle=15.9)
    sim[0].load = 0
    sim.run(3)
    for _turn in range(3):  # the last reading says idle, the next one why
        sim[0].load = 16
        sim.judge.completed("g0/r0", "busy", 0.01, 503, sim.now)
        sim.run(0.3)
    assert sim.inside() == [0, 1, 2, 3]
    assert {after for _at, who, _before, after in sim.changes if who == "g0/r0"} <= {"degraded", "up"}


def test_unreadable_metrics_degrade_and_completions_decide():
    sim = pool()
    sim[0].readable = False
    asked = sim[0].asked["complete"]
    sim.run(20)
    verdict = sim.judge.verdict("g0/r0")
    assert (verdict.health, verdict.in_rotation, verdict.reason) == ("degraded", True, "metrics cannot be read")
    assert sim[0].asked["complete"] - asked <= 4
    sim[0].status = 503
    sim.mark().run(15)
    assert sim.out_after() <= 11
    sim = pool()
    sim[0].readable = sim[0].takes_new = False
    sim.run(17)
    assert sim.out_after() <= 16.5, "two completions, with nothing else to go by"


# --- floor


def test_facts_take_the_room_of_judgements():
    sim = pool()
    refuse(sim[3])
    sim.run(2)
    fail(sim[0])
    sim.run(12)
    assert sim.inside() == [0, 1, 2]
    assert sim.judge.verdict("g0/r0").held
    sim[3].connect = "ok"
    sim.run(10)
    assert sim.inside() == [1, 2, 3]


def test_the_last_one_is_never_out_by_judgement():
    sim = pool(2)
    fail(sim[0])
    sim.run(12)
    assert sim.inside() == [1]
    refuse(sim[1])
    sim.run(1.5)
    assert sim.inside() == [0]
    assert sim.judge.verdict("g0/r0").held


def test_one_that_was_held_never_left_and_needs_no_slow_start():
    sim = pool()
    fail(sim[0])
    fail(sim[1])
    sim.run(15)
    held = next(number for number in range(2) if sim.judge.verdict(f"g{number}/r0").held)
    since = sim.judge.verdict(f"g{held}/r0").since
    sim[held].status = 200
    sim.run(6)
    assert sim.judge.verdict(f"g{held}/r0").health == "up"
    assert sim.judge.verdict(f"g{held}/r0").since == since


# --- return, restart, drain


def test_one_bad_round_begins_the_return_anew():
    sim = pool()
    fail(sim[0])
    sim.run(15).mark()
    sim[0].status = 200
    sim.run(1.6)
    sim[0].status = 500
    sim.run(1.2)
    sim[0].status = 200
    sim.run(10)
    assert min(at for at, _who, _before, after in sim.changes if after == "up") >= 4.5


def test_one_that_started_anew_while_drained_must_generate_before_it_is_in_rotation():
    sim = pool(3)
    sim.judge.administer("g0/r0", "drained")
    refuse(sim[0])
    sim.run(3)
    sim[0].connect, sim[0].status = "ok", 500
    sim.run(10)
    sim.judge.administer("g0/r0", "active")
    sim.run(8)
    assert sim.inside() == [1, 2]
    sim[0].status = 200
    sim.run(8)
    assert sim.inside() == [0, 1, 2]


def test_one_that_was_well_while_drained_is_in_rotation_at_once_and_probed_at_once():
    sim = pool(3)
    sim.judge.administer("g0/r0", "drained")
    sim.run(20)
    sim.judge.administer("g0/r0", "active")
    sim.judge.tick()
    assert sim.inside() == [0, 1, 2]
    assert sim.judge.due("g0/r0").completion <= sim.now


def test_an_engine_that_started_anew_is_measured_anew():
    sim = pool(2, settle=85)
    sim[0].memory, sim[0].steps, sim[0].ttft_count, sim[0].ttft_sum = 9 << 30, 0.0, 0, 0.0
    sim.run(50)
    assert sim.changes == []


def test_counters_of_a_balancer_that_started_anew_say_nothing():
    sim = pool(settle=12.3)
    sim.judge.observed("g0/r0", Observed(good=10, failed=500, failed_in_row=4))
    sim.run(1)
    before = sim.judge.due("g0/r0")
    sim.judge.observed("g0/r0", Observed(good=0, failed=3, failed_in_row=3))
    assert sim.judge.due("g0/r0") == before


def test_changes_are_told_once_with_the_numbers_that_decided():
    sim = pool(3)
    freeze_engine(sim[0])
    sim.run(8)
    assert [row[1:] for row in sim.changes] == [("g0/r0", "up", "down")]
    assert sim.judge.changes() == []
    numbers = sim.judge.numbers("g0/r0")
    assert numbers["no_step_for_seconds"] >= 3.8
    assert numbers["metrics"]["running"] >= 4
