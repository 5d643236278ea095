"""Role llm_monitoring on two hosts: their Alertmanagers, run by its flags and files, notify once, whichever dies.

The second of two waits 15 seconds longer than the first, so that it can hear from it: half of what this takes.
"""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.vllm.running import await_that
from tests.fakes.web import Web
from tests.monitoring_role import BOTH, PAGED_BY, Rendered, render
from tests.monitoring_services import Service, running
from tests.ports import free_port

PAGE = {"alertname": "LLMReplicaDown", "severity": "page", "group": "health", "pool": "chat", "replica": "gpu1/r0"}
EVERY = 1.0  # seconds: Prometheus tells each evaluation what has changed, and each minute what has not
PEER_SECONDS = 15  # Alertmanager's own --cluster.peer-timeout
# Until the second one has notified, or kept quiet, at the latest; what is over is for a slow machine.
TURN_SECONDS = BOTH["llm_monitoring_page_wait"] + PEER_SECONDS + 5


@dataclass
class Pair:
    """Two Alertmanagers, the one that notifies first in front; and whoever is paged."""

    first: Service
    second: Service
    paged: Web

    @property
    def notified(self) -> int:
        """How many notifications arrived, and that all of them are about the page."""
        assert {sent["status"] for _method, _path, sent in self.paged.asked} <= {"firing"}
        return len(self.paged.asked)

    @contextlib.contextmanager
    def firing(self) -> Iterator[None]:
        """An alert fires: both are told again and again, as by a Prometheus, whether they answer or not."""
        began, over = datetime.datetime.now(datetime.timezone.utc), threading.Event()

        def tell() -> None:
            while not over.is_set():
                ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=4 * EVERY)
                alert = {"labels": PAGE, "startsAt": began.isoformat(), "endsAt": ends.isoformat()}
                for alertmanager in (self.first, self.second):
                    with contextlib.suppress(OSError):
                        alertmanager.ask("/api/v2/alerts", [alert])
                over.wait(EVERY)

        teller = threading.Thread(target=tell)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def stays_at_one(self) -> None:
        """Nothing follows in the second after it would have been sent."""
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert self.notified == 1
            time.sleep(0.05)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rendered]:
    return render(tmp_path_factory.mktemp("hosts"), {member["name"]: BOTH for member in BOTH["llm_monitoring_members"]})


@pytest.fixture
def pair(hosts: dict[str, Rendered], tmp_path: pathlib.Path) -> Iterator[Pair]:
    members = BOTH["llm_monitoring_members"]
    here = {f"{member['address']}:9094": f"127.0.0.1:{free_port()}" for member in members}
    with Web(lambda method, path, sent: (200, {})) as paged, contextlib.ExitStack() as stack:
        here[PAGED_BY] = f"{paged.url}/page"
        both: list[Service] = []
        for member in members:
            place = tmp_path / member["name"]
            place.mkdir()
            both.append(stack.enter_context(running("alertmanager", hosts[member["name"]], place, here)))

        def clusters() -> list[Any]:
            return [one.json("/api/v2/status")["cluster"] for one in both]

        await_that(
            lambda: all(told["status"] == "ready" and len(told["peers"]) == 2 for told in clusters()),
            "both know each other and are settled",
            30,
        )
        names = [told["name"] for told in clusters()]
        first, second = sorted(both, key=lambda one: names[both.index(one)])  # they take turns in this order
        yield Pair(first, second, paged)


def had_its_turn(alertmanager: Service) -> Callable[[], bool]:
    """Whether it has asked the log of notifications what to do, which is the last step before it notifies."""
    return lambda: alertmanager.metric("alertmanager_nflog_queries_total") >= 1


def test_while_both_live_one_notifies(pair: Pair) -> None:
    with pair.firing():
        await_that(lambda: pair.notified, "the first notifies")
        assert not had_its_turn(pair.second)()
        await_that(had_its_turn(pair.second), "the second has had its turn", TURN_SECONDS)
        pair.stays_at_one()


def test_when_one_is_dead_the_other_notifies(pair: Pair) -> None:
    pair.first.kill()
    with pair.firing():
        await_that(lambda: pair.notified, "the second notifies", TURN_SECONDS)
        pair.stays_at_one()


def test_what_the_dead_one_has_sent_is_not_sent_again(pair: Pair) -> None:
    with pair.firing():
        await_that(lambda: pair.notified, "the first notifies")
        heard = "alertmanager_nflog_gossip_messages_propagated_total"
        await_that(lambda: pair.second.metric(heard) >= 1, "the second has heard of it", 2)
        pair.first.kill()
        assert not had_its_turn(pair.second)()
        await_that(had_its_turn(pair.second), "the second has had its turn", TURN_SECONDS)
        pair.stays_at_one()
