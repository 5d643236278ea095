"""What the check says of an address that balancers share; in the role's preflight and for a whole inventory."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._check import address as check_address
from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check

MEMBERS = [{"name": "lb1", "address": "192.0.2.11"}, {"name": "lb2", "address": "192.0.2.12"}]
SIX = [{"name": "lb1", "address": "2001:db8::11"}]
GOOD = {**check_address.DEFAULTS, "members": MEMBERS, "virtual_address": "192.0.2.10/24"}
SERVER = {
    "llmops_address": "192.0.2.21",
    "llmops_model_name": "llama",
    "llmops_model_source": "file:///srv/llama",
    "llmops_model_revision": "1",
    "llmops_backend_keys": ["k" * 40],
}
BALANCER = {
    "llmops_backend_keys": ["k" * 40],
    "llmops_client_keys": [{"name": "team-a", "key": "s" * 20}],
    "llm_balancer_tls_certificate": "files/llm.crt",
    "llm_balancer_tls_key": "files/llm.key",
    "llm_balancer_virtual_address": "192.0.2.10/24",
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"virtual_address": "", "virtual_router_id": 999, "members": []}, None),
        ({"host": "lb2", "advert_interval": "1", "virtual_router_id": "255"}, None),
        ({"virtual_address": "2001:db8::10/64", "members": SIX}, None),
        ({"virtual_address": "192.0.2.10/32"}, None),
        ({"virtual_address": "192.0.2.10"}, r"virtual_address is '192.0.2.10': .* such as 192.0.2.10/24"),
        ({"virtual_address": "llm.example.com/24"}, r"virtual_address is 'llm.example.com/24': give"),
        ({"virtual_address": "192.0.2.0/24"}, r"is the network 192.0.2.0/24 itself"),
        ({"virtual_address": "127.0.0.1/8"}, r"clients cannot reach"),
        ({"virtual_address": "224.0.0.18/24"}, r"clients cannot reach"),
        ({"virtual_address": "192.0.2.12/24"}, r"own address of balancer lb2"),
        (
            {"virtual_address": "2001:db8::10/64", "members": MEMBERS[:1]},
            r"of one family, so set llmops_address .* IPv6",
        ),
        ({"members": [*MEMBERS, {"name": "lb3", "address": "lb3.example.com"}]}, r"llmops_address of balancer lb3 is"),
        ({"host": "lb9"}, r"lb9 is none of the balancers lb1, lb2: put it into"),
        ({"host": "lb9", "members": []}, r"lb9 is none of the balancers \(there are none\)"),
        ({"virtual_router_id": 0}, r"llm_balancer_virtual_router_id is 0: VRRP takes 1 to 255"),
        ({"virtual_router_id": "256"}, r"llm_balancer_virtual_router_id is 256"),
        ({"advert_interval": 0.01}, r"llm_balancer_advert_interval is 0.01 s: give 0.05 to 40.95"),
        ({"advert_interval": 60}, r"llm_balancer_advert_interval is 60 s"),
    ],
)
def test_problem_names_variable_and_mend(changes: dict[str, Any], words: str | None) -> None:
    found = [str(problem) for problem in check_address.problems({**GOOD, **changes})]
    if words is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert re.search(words, found[0]), found[0]


def findings(**balancers: dict[str, Any]) -> list[str]:
    hostvars = {"gpu1": SERVER}
    hostvars |= {
        host: {**BALANCER, "llmops_address": f"192.0.2.1{host[-1]}", **changes} for host, changes in balancers.items()
    }
    inventory = fleet_check.Inventory(hostvars, {"llm_servers": ["gpu1"], "llm_balancers": list(balancers)})
    now = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
    return [str(finding) for finding in fleet_check.check(inventory, now).findings]


def test_a_pair_with_one_address_is_silent() -> None:
    assert findings(lb1={}, lb2={}) == []


def test_the_check_of_an_inventory_sees_a_wrong_address_and_router_id() -> None:
    wrong = {"llm_balancer_virtual_address": "192.0.2.12/24", "llm_balancer_virtual_router_id": 300}
    found = findings(lb1=wrong, lb2=wrong)
    assert len(found) == 2, found
    assert any("own address of balancer lb2" in line for line in found)
    assert any("VRRP takes 1 to 255" in line for line in found)


def test_the_check_of_an_inventory_sees_a_balancer_that_is_named_by_dns() -> None:
    found = findings(lb1={}, lb2={"llmops_address": "lb2.example.com"})
    assert len([line for line in found if "tell each other by IP address who is alive" in line]) == 1, found


@pytest.mark.parametrize(
    "change",
    [
        {"llm_balancer_virtual_address": ""},
        {"llm_balancer_virtual_address": "192.0.2.9/24"},
        {"llm_balancer_virtual_router_id": 78},
        {"llm_balancer_advert_interval": 1},
    ],
)
def test_balancers_of_one_group_must_agree(change: dict[str, Any]) -> None:
    found = findings(lb1={}, lb2=change)
    assert len(found) == 1, found
    assert found[0].startswith(f"lb2: {next(iter(change))} is ")
    assert "on balancer lb1: give all balancers the same" in found[0]
