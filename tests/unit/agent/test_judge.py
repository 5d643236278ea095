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
    (simulation.freeze_idle_engine, 15.0, "judgement", "wedged:"),
    (simulation.freeze_process, 6.0, "judgement", "no answer for"),
    (fail, 15.0, "judgement", "HTTP 500"),
    (simulation.refuse_key, 15.0, "judgement", "HTTP 401"),
    (simulation.babble, 15.0, "judgement", "nonsense"),
    (simulation.idle_503, 15.0, "judgement", "HTTP 503 though nothing runs"),
    (simulation.slow_down, 20.0, "judgement", "slow:"),
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


@pytest.mark.parametrize("what", ["engine", "process"])
@pytest.mark.parametrize("load", [0, 4])
@pytest.mark.parametrize("offset", [x * 0.15 for x in range(70)])
def test_a_stall_of_three_and_a_half_seconds_removes_nobody(what, load, offset):
    sim = pool(3, settle=12)
    sim[0].load = load
    sim.run(30, stall(sim, what, offset, 3.5))
    assert sim.inside() == [0, 1, 2]
    assert [row for row in sim.changes if row[3] == "down"] == []


@pytest.mark.parametrize("what", ["engine", "process"])
@pytest.mark.parametrize("offset", [x * 0.15 for x in range(70)])
def test_a_stall_of_six_seconds_in_which_nothing_is_generated_is_always_noticed(what, offset):
    sim = pool(3, settle=12)
    sim.run(offset + 6.5, stall(sim, what, offset, 6.0))
    assert sim.out_after() <= offset + 6.0
    sim.run(10)
    assert sim.inside() == [0, 1, 2]


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


@pytest.mark.parametrize("fault", [refuse, vanish, freeze_engine, simulation.freeze_process])
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
