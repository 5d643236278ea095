"""What people do under load: drain, undrain, reload; and what they break: the agent, its files, a worker of NGINX."""

from __future__ import annotations

import json
import time

from tests.traffic import faults, seen
from tests.traffic.fleet import BALANCERS, FAKE, Replica, await_that, control, holder, other, row, sh, status
from tests.traffic.load import hostile, under_load

VICTIM = Replica("gpu3", "r1")
MEMBERSHIP = "/etc/llm-agent/pools.d/site.json"


def inflight(balancer: str) -> dict[str, int | None]:
    return {entry["id"]: entry["inflight"] for entry in status(balancer)["replicas"]}


def await_no_request_in_flight() -> None:
    """Counts of the engine go back to nothing: what is left would make a replica look busy for ever."""
    for balancer in BALANCERS:
        await_that(lambda name=balancer: not any(inflight(name).values()), f"no count is left on {balancer}", 20)


def set_state(balancer: str, replica: Replica, state: str) -> None:
    body = {"replicas": [replica.id], "state": state, "reason": "test", "by": "test", "force": False}
    code, told = control(balancer, "POST", "/v1/state", body)
    assert code == 200, told


def test_drain_restart_and_undrain_by_the_playbooks_fail_nobody(form: str) -> None:
    with under_load("--workers", "32", "--tokens", "4-60", "--words", "5-50") as results:
        FAKE.playbook("drain", "-e", f"llmops_target={VICTIM.id}")
        for balancer in BALANCERS:
            entry = row(balancer, VICTIM)
            assert (entry["administrative"], entry["in_rotation"], entry["inflight"]) == ("drained", False, 0), entry
        sh(VICTIM.host, f"systemctl restart {VICTIM.unit}")
        url = f"http://{VICTIM.endpoint}/health"
        await_that(
            lambda: "200" in sh(VICTIM.host, f"curl -s -o /dev/null -w '%{{http_code}}' {url} || true"), "it runs"
        )
        FAKE.playbook("undrain", "-e", f"llmops_target={VICTIM.id}")
        await_that(lambda: all(row(name, VICTIM)["in_rotation"] for name in BALANCERS), "it is back in rotation")
    rows = results[0].rows
    print(len(rows), results[0].told["verdicts"])
    assert len(rows) > 300
    if form == "lua":
        assert seen.bad(rows) == []
    else:  # the price of a reload, stated in the role's README: some kept connections are reset
        assert len(seen.bad(rows)) <= len(rows) / 500, seen.bad(rows)[:5]
        assert [entry for entry in seen.bad(rows) if entry["began"]] == []


def test_drain_below_the_minimum_is_refused_in_words(once: None) -> None:
    done = FAKE.playbook("drain", "-e", f"llmops_target={FAKE.pool}", expected=None)
    assert FAKE.pool in done
    assert "minimum" in done
    assert all(row(name, one)["in_rotation"] for name in BALANCERS for one in FAKE.replicas)


def test_agent_that_was_killed_keeps_drains_and_disturbs_nobody(form: str) -> None:
    with under_load("--rate", "25", "--tokens", "4-24") as results:
        for balancer in BALANCERS:
            set_state(balancer, VICTIM, "drained")
            faults.kill_unit(balancer, "llm-agent")
        for balancer in BALANCERS:
            await_that(lambda name=balancer: row(name, VICTIM)["administrative"] == "drained", f"{balancer} remembers")
            assert not row(balancer, VICTIM)["in_rotation"]
        for balancer in BALANCERS:
            set_state(balancer, VICTIM, "active")
    if form == "lua":
        assert seen.bad(results[0].rows) == []
    assert [entry for entry in seen.bad(results[0].rows) if entry["began"]] == []


def test_drain_on_one_balancer_reaches_the_other(once: None) -> None:
    begin = time.time()
    first = holder()
    set_state(first, VICTIM, "drained")
    await_that(lambda: row(other(first), VICTIM)["administrative"] == "drained", "the other agent has heard of it", 15)
    set_state(first, VICTIM, "active")
    await_that(lambda: row(other(first), VICTIM)["administrative"] == "active", "and of its end", 15)
    assert time.time() - begin < 40


def test_broken_membership_keeps_the_old_one_and_is_told(once: None) -> None:
    balancer = BALANCERS[1]
    good = sh(balancer, f"cat {MEMBERSHIP}")
    try:
        sh(balancer, f"cat > {MEMBERSHIP}", given='{"version": 1, "writer": "si')
        problems = await_that(lambda: status(balancer)["membership"]["problems"], "the agent tells of it", 15)
        assert MEMBERSHIP in json.dumps(problems) or "site" in json.dumps(problems)
        assert len(status(balancer)["replicas"]) == len(FAKE.replicas)
        gone = {**json.loads(good), "replicas": []}
        sh(balancer, f"cat > {MEMBERSHIP}", given=json.dumps(gone))
        time.sleep(5)  # the time in which nothing may happen
        assert len(status(balancer)["replicas"]) == len(FAKE.replicas), "active replicas never vanish by a file"
    finally:
        sh(balancer, f"cat > {MEMBERSHIP}", given=good)
    await_that(lambda: not status(balancer)["membership"]["problems"], "the mended file is read", 15)


def test_killed_worker_of_the_engine_costs_its_own_streams_and_leaves_no_count(form: str) -> None:
    balancer = holder()
    with under_load("--rate", "25", "--tokens", "20-60") as results:
        begin = time.time()
        sh(balancer, "kill -KILL $(pgrep -P $(systemctl show -p MainPID --value nginx) | head -1)")
        time.sleep(3)  # requests after the fault, which must be good
    assert seen.started_after(results[0].rows, begin + 1) != []
    assert seen.bad_started_after(results[0].rows, begin + 1) == []
    if form == "lua":
        await_no_request_in_flight()
    assert [event for event in seen.removals(begin)[balancer] if event.replica != ""] == []


def test_reloads_cut_no_stream_and_leave_no_count(form: str) -> None:
    with under_load("--workers", "16", "--tokens", "20-80", "--streamed", "1") as results:
        for _turn in range(3):
            sh(holder(), "systemctl reload nginx")
            time.sleep(2)
    assert [entry for entry in seen.bad(results[0].rows) if entry["began"]] == []
    if form == "lua":
        await_no_request_in_flight()


def test_clients_that_leave_free_their_replicas(form: str) -> None:
    hostile("aborts", count=10, seconds=6).wait()
    if form == "lua":
        await_no_request_in_flight()
    for replica in FAKE.replicas:
        busy = (
            f"curl -s http://{replica.endpoint}/metrics | grep '^vllm:num_requests_running' | grep -v ' 0.0$' || true"
        )
        await_that(lambda one=replica, command=busy: not sh(one.host, command).strip(), f"{replica.id} is idle", 20)
