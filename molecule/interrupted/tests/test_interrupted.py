"""Rollouts that end in the middle: traffic flows, the status tells what is so, and the next run finishes."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.traffic import rollout, seen
from tests.traffic.broken import CASES, USUAL
from tests.traffic.fleet import BALANCERS, ROLLED, await_healthy, await_that, holder, other, sh, status
from tests.traffic.load import under_load

LOAD = ("--rate", "20", "--tokens", "2-40*9,100-200*1", "--timeout", "120")
# enough to go through the steps; what the gates decide is seen elsewhere
QUICK = {
    "llmops_rollout_pools": ["short-fake"],
    "llmops_rollout_shadow": {"requests": 0},
    "llmops_rollout_burn_in": 5,
    "llmops_rollout_canary": {"soak": 5, "timeout": 60, "samples": 20, "ignore": 5},
}
CANARY, HOST, POOL = "gpu1/r2", "gpu1", "/r2"  # the small pool, as every test rolls all of it twice


def change() -> dict[str, Any]:
    """Variables of a rollout to a release that was never there."""
    return {**QUICK, "vllm_environment": {**USUAL, "FAKE_VLLM_TAG": str(time.time())}}


def await_drained() -> None:
    await_that(lambda: CANARY in rollout.drained(holder()), "the rollout has drained the canary", 600)


def finished(variables: dict[str, Any], before: dict[str, str]) -> None:
    """The next run ends green, with every replica of the pool on the new release."""
    rollout.play(ROLLED, variables)
    await_healthy(ROLLED)
    now = rollout.releases(ROLLED)
    assert [one for one in now if one.endswith(POOL) and now[one] == before[one]] == []


@pytest.mark.parametrize("turn", range(3))
def test_controller_that_is_killed_at_a_random_moment(turn: int) -> None:
    before, variables = rollout.releases(ROLLED), change()
    moment, records = random.Random(turn).uniform(1, 45), set(rollout.records())
    with under_load(*LOAD, client="demo") as loads:
        with rollout.running(ROLLED, variables) as run:
            await_drained()
            time.sleep(moment)
            run.kill()
        print(f"killed {moment:.0f} s after the first drain; left drained: {rollout.drained(holder())}")
        record = json.loads((rollout.RECORDS / (set(rollout.records()) - records).pop()).read_text())
        assert (record["outcome"], record["entries"][0]["id"]) == ("failed", CANARY)
        assert record["entries"][0]["outcome"] in ("failed", "done")
        finished(variables, before)
    assert len(loads[0].rows) > 200
    assert seen.bad(loads[0].rows) == []


def test_broken_release_whose_run_is_killed_before_it_is_noticed() -> None:
    """The next run proves first what is there, finds it broken, and brings the old release back into rotation."""
    before, variables = rollout.releases(ROLLED), {**QUICK, **CASES["answers nonsense"].given()}
    with under_load(*LOAD, client="demo") as loads:
        with rollout.running(ROLLED, variables) as run:
            await_drained()
            await_that(lambda: rollout.releases(ROLLED)[CANARY] != before[CANARY], "the canary is switched", 300)
            run.kill()
        done = rollout.play(ROLLED, variables, expected=2)
        assert done.outcomes()[CANARY] == "rolled_back"
        await_healthy(ROLLED)
        assert rollout.releases(ROLLED) == before
        again = rollout.play(ROLLED, variables, expected=2)
        assert "it is marked bad: golden: not as expected" in again.printed
    assert seen.bad(loads[0].rows) == []


def test_host_that_is_to_be_rebooted() -> None:
    """With three replicas of two pools, and nobody to compare them with: that is no failure."""
    releases, before = rollout.releases(ROLLED), rollout.processes(ROLLED)
    with under_load(*LOAD, client="demo") as loads, rollout.reboots("gpu3"):
        variables = {**QUICK, "llmops_rollout_pools": [], "llmops_rollout_replicas": ["gpu3"]}
        done = rollout.play(ROLLED, {**variables, "llmops_rollout_min_healthy": 1}, action="reboot")
    assert done.outcomes() == {"gpu3/*": "done"}
    assert {one for one, process in rollout.processes(ROLLED).items() if process != before[one]} == {
        f"gpu3/{name}" for name in ("r0", "r1", "r2")
    }
    assert rollout.releases(ROLLED) == releases
    assert seen.bad(loads[0].rows) == []


def test_host_that_is_restarted_while_its_replica_is_out() -> None:
    before, variables = rollout.releases(ROLLED), change()
    with under_load(*LOAD, client="demo") as loads:
        with rollout.running(ROLLED, variables) as run:
            await_drained()
            lost = time.time()
            subprocess.run(["docker", "restart", "-t", "5", f"llmops-{HOST}"], check=True, capture_output=True)
            run.wait()
        await_that(lambda: sh(HOST, "systemctl is-system-running --wait || true"), "the host is up", 120)
        finished(variables, before)
    # streams of its other replica end with the host; nobody else notices
    gone = [row for row in seen.bad(loads[0].rows) if not row["began"] or row["start"] > lost + 2]
    assert gone == []


@contextmanager
def unreachable(host: str) -> Iterator[None]:
    """The controller cannot reach the host; whatever runs there goes on."""
    subprocess.run(["docker", "rename", f"llmops-{host}", f"llmops-{host}-away"], check=True)
    try:
        yield
    finally:
        subprocess.run(["docker", "rename", f"llmops-{host}-away", f"llmops-{host}"], check=True)


def test_connection_to_the_server_that_is_lost() -> None:
    before, variables = rollout.releases(ROLLED), change()
    with under_load(*LOAD, client="demo") as loads:
        with rollout.running(ROLLED, variables) as run:
            await_drained()
            with unreachable(HOST):
                assert run.wait() != 0
        assert "STAYS DRAINED" in rollout.LOG.read_text()
        assert rollout.leases() == {}
        told = ROLLED.playbook("status")
        assert f"{CANARY}: drained" in told
        finished(variables, before)
    assert seen.bad(loads[0].rows) == []


def test_balancer_that_is_lost_without_the_address_is_done_without() -> None:
    before, variables = rollout.releases(ROLLED), change()
    lost = other(holder())
    with under_load(*LOAD, client="demo") as loads:
        with rollout.running(ROLLED, variables) as run:
            await_drained()
            with unreachable(lost):
                assert run.wait() == 0, rollout.LOG.read_text()[-3000:]
        await_healthy(ROLLED)
    now = rollout.releases(ROLLED)
    assert [one for one in now if one.endswith(POOL) and now[one] == before[one]] == []
    assert seen.bad(loads[0].rows) == []


@contextmanager
def full(path: str) -> Iterator[Callable[[], None]]:
    """The directory lies on a disk of its own, which is full once the block has called what it gets."""
    sh(HOST, f"cp -a {path} /root/kept && mount -t tmpfs -o size=4m tmpfs {path} && cp -a /root/kept/. {path}/")

    def fill() -> None:
        sh(HOST, f"mount -o remount,nr_inodes=$(df --output=iused {path} | tail -1 | tr -d ' ') {path}")

    try:
        yield fill
    finally:
        sh(HOST, f"rm -rf /root/kept; cp -a {path} /root/kept; umount {path}; rm -rf {path}; mv /root/kept {path}")


def test_disk_that_is_full_when_the_release_is_switched() -> None:
    before, variables = rollout.releases(ROLLED), change()
    with under_load(*LOAD, client="demo") as loads:
        with full("/etc/vllm/r2") as fill:
            with rollout.running(ROLLED, variables) as run:
                await_drained()
                fill()
                assert run.wait() != 0
            assert "No space left" in rollout.LOG.read_text()
        finished(variables, before)
    assert seen.bad(loads[0].rows) == []


# so long that every replica of the pool has some when its drain has lasted for ten seconds
LONG = ("--rate", "2", "--tokens", "1500-2500*1", "--timeout", "180")
IMPATIENT = {"llmops_rollout_drain_timeout": 10}


def test_drain_that_does_not_end_puts_the_replica_back() -> None:
    before, variables = rollout.releases(ROLLED), {**change(), **IMPATIENT}
    with under_load(*LONG, client="demo") as loads:
        done = rollout.play(ROLLED, variables, expected=2)
    outcomes = done.outcomes()
    assert outcomes.pop(CANARY) == "failed" and set(outcomes.values()) == {"untouched"}
    assert "Let them be cut: -e llmops_rollout_drain_action=cut" in done.entry(CANARY)["reason"]
    assert rollout.releases(ROLLED) == before
    assert rollout.drained(holder()) == []
    assert seen.bad(loads[0].rows) == []


def test_drain_that_does_not_end_cuts_what_it_counts_where_it_is_told_to() -> None:
    before, variables = rollout.releases(ROLLED), {**change(), **IMPATIENT, "llmops_rollout_drain_action": "cut"}
    with under_load(*LONG, client="demo") as loads:
        done = rollout.play(ROLLED, variables)
    assert set(done.outcomes().values()) == {"done"}
    now = rollout.releases(ROLLED)
    assert [one for one in now if one.endswith(POOL) and now[one] == before[one]] == []
    lost, cut = seen.bad(loads[0].rows), sum(entry["requests"]["cut"] for entry in done.record["entries"])
    print(f"{len(lost)} of {len(loads[0].rows)} requests broke, {cut} were told")
    assert 0 < len(lost) <= cut
    assert [row for row in lost if not row["began"]] == []


def test_the_agents_tell_who_drained_it() -> None:
    """What the next run, and status.yml, go by."""
    with rollout.running(ROLLED, change()) as run:
        await_drained()
        row = next(row for row in status(BALANCERS[0])["replicas"] if row["id"] == CANARY)
        run.wait()
    assert row["by"].startswith("rollout ")
