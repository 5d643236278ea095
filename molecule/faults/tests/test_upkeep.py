"""What keeps the tier up over months: replicas that hang come back, balancers are updated, keys change."""

from __future__ import annotations

import json
import re
import time

from tests.traffic import faults, fleet, seen
from tests.traffic.fleet import BALANCERS, CLIENT, FAKE, Replica, await_that, control, holder, sh
from tests.traffic.load import SERVICE, under_load

VICTIM = Replica("gpu2", "r1")
RECORDS = "/var/lib/vllm-watchdog/incidents"
DROP_IN = "/etc/systemd/system/nginx.service.d/llm.conf"


def incident(balancer: str) -> str:
    """Id of the last incident of the victim, as this balancer's agent tells it; "" without one."""
    _code, told = control(balancer, "GET", f"/v1/replicas?id={VICTIM.id}")
    return str((told["incident"] or {}).get("incident", ""))


def test_replica_that_stays_wedged_is_restarted_after_its_flight_record_was_saved(once: None) -> None:
    before = {incident(name) for name in BALANCERS}
    with under_load("--rate", "25", "--tokens", "4-24") as results:
        faults.switch(VICTIM, "freeze_engine")
        new = await_that(lambda: {incident(name) for name in BALANCERS} - before, "an incident is told", 90)
        place = f"{RECORDS}/{new.pop()}"
        await_that(lambda: sh(VICTIM.host, f"cat {place}/incident.json"), "its flight record is there", 30)
        fleet.await_healthy(FAKE)
    files = set(sh(VICTIM.host, f"ls {place}").split())
    assert {"incident.json", "journal.txt", "metrics.txt", "processes.txt", "sockets.txt"} <= files
    assert sh(VICTIM.host, f"stat -c %a {RECORDS}").strip() == "700"
    stands_still = r"\sT\S*\s"  # column STAT of ps
    assert re.search(stands_still, sh(VICTIM.host, f"cat {place}/processes.txt")), "it shows what stood still"
    assert seen.bad_elsewhere(results[0].rows, [VICTIM]) == []


def test_update_moves_the_address_once_and_what_starts_after_it_succeeds(form: str) -> None:
    for name in BALANCERS:
        sh(name, f"touch {DROP_IN}")  # its NGINX is older than its unit now
    before, begin = holder(), time.time()
    pids = {name: sh(name, "systemctl show -p MainPID --value nginx") for name in BALANCERS}
    with under_load("--rate", "25", "--tokens", "4-12", "--new-connections") as results:
        FAKE.playbook("balancer_update", "-e", "llmops_update_yes=true")
    assert holder() != before
    taken = "journalctl -u keepalived -o cat --no-pager --since @{} | grep -c 'Entering MASTER STATE' || true"
    assert sum(int(sh(name, taken.format(int(begin)))) for name in BALANCERS) == 1
    for name in BALANCERS:
        assert sh(name, "systemctl show -p MainPID --value nginx") != pids[name], f"{name} was not restarted"
    starts = [row["start"] for row in seen.bad(results[0].rows)]
    assert len(results[0].rows) > 500
    assert not starts or max(starts) - min(starts) <= 2, "only what ran when the address moved"
    stays = holder()
    FAKE.playbook("balancer_update")  # nothing is older any more: nobody is asked, nothing moves
    assert holder() == stays


def test_client_key_comes_and_goes_by_a_reload(once: None) -> None:
    extra = {"name": "new", "key": "sk-" + "n" * 40}
    pid = sh(holder(), "systemctl show -p MainPID --value nginx")
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' --cacert /opt/sandbox/pki/ca.crt -H @- {SERVICE}/models"
    keys = json.loads(fleet.SECRETS.read_text())["client_keys"]

    def answer() -> str:
        return sh(CLIENT, ask, given=f"Authorization: Bearer {extra['key']}\n")

    with under_load("--workers", "16", "--tokens", "20-80") as results:
        FAKE.playbook("site", "--tags", "balancers", "-e", json.dumps({"llmops_client_keys": [*keys, extra]}))
        assert answer() == "200"
        FAKE.playbook("site", "--tags", "balancers")
        assert answer() == "401"
    # a reload cuts no stream; a kept connection can be closed in the moment in which its client uses it again
    assert {row["verdict"] for row in seen.bad(results[0].rows)} <= {"reset_before_first_byte"}
    assert len(seen.bad(results[0].rows)) <= 2
    assert sh(holder(), "systemctl show -p MainPID --value nginx") == pid
