"""The administrative state: who wins, what a disk may do to it, and leases."""

from __future__ import annotations

import errno
import json
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import files
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import LeaseHeld, Store, StoreError

NOW = 1_700_000_000.0


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return 1000 + self.passed

    def time(self) -> float:
        return NOW + self.passed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "admin.json"


def opened(path: pathlib.Path, clock: Clock | None = None) -> Store:
    clock = clock or Clock()
    return Store(path, clock.monotonic, clock.time)


def entry(state: str, generation: int, **more: Any) -> dict[str, Any]:
    return {"state": state, "generation": generation, "reason": "r", "by": "b", "at": NOW, **more}


class Disk:
    """Lets writes of the agent's files fail as a full disk does, until it is emptied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        real = files.os.fsync

        def fsync(number: int) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(number)

        monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_replica_that_nobody_spoke_of_is_active(path: pathlib.Path) -> None:
    store = opened(path)
    assert (store.is_active("g1/r0"), store.generation, store.admin(), store.problems) == (True, 0, {}, [])


def test_a_drain_survives_a_restart_with_who_why_and_when(path: pathlib.Path) -> None:
    assert opened(path).set(["g1/r0", "g2/r0"], "drained", "new kernel", "alice") == ["g1/r0", "g2/r0"]
    again = opened(path).intent("g1/r0")
    assert (again.state, again.generation, again.reason, again.by, again.at) == (
        "drained",
        1,
        "new kernel",
        "alice",
        NOW,
    )


def test_what_is_so_already_keeps_its_generation(path: pathlib.Path) -> None:
    store = opened(path)
    store.set(["g1/r0"], "drained", "x", "alice")
    assert store.set(["g1/r0"], "drained", "y", "bob") == []
    assert store.set(["g2/r0"], "active", "y", "bob") == []
    assert (store.generation, store.intent("g1/r0").by) == (1, "alice")


def test_each_change_is_later_than_all_that_is_known(path: pathlib.Path) -> None:
    store = opened(path)
    store.merge({"g9/r0": entry("drained", 41)})
    store.set(["g1/r0"], "drained", "", "a")
    assert store.intent("g1/r0").generation == 42


@pytest.mark.parametrize(
    ("own", "theirs", "state"),
    [
        (("drained", 3), ("active", 4), "active"),
        (("active", 4), ("drained", 3), "active"),
        (("active", 3), ("drained", 3), "drained"),
        (("drained", 3), ("active", 3), "drained"),
    ],
)
def test_the_later_decision_wins_and_a_drain_at_a_tie(
    path: pathlib.Path, own: tuple[str, int], theirs: tuple[str, int], state: str
) -> None:
    store = opened(path)
    store.merge({"g1/r0": entry(*own)})
    changed = store.merge({"g1/r0": entry(*theirs)})
    assert opened(path).intent("g1/r0").state == state
    assert changed == ([] if own[0] == state else ["g1/r0"])


def test_two_agents_agree_whoever_asks_first(tmp_path: pathlib.Path) -> None:
    one, two = opened(tmp_path / "one.json"), opened(tmp_path / "two.json")
    one.set(["g1/r0"], "drained", "", "a")
    two.set(["g2/r0"], "drained", "", "b")
    two.set(["g2/r0"], "active", "", "b")
    one.merge(two.admin())
    two.merge(one.admin())
    assert one.admin() == two.admin()
    assert one.merge(two.admin()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        None,
        entry("gone", 1),
        entry("drained", -1),
        entry("drained", True),
        entry("drained", 2**60),
        entry("drained", 1, at="now"),
        entry("drained", 1, more=1),
    ],
)
def test_nonsense_of_a_peer_changes_nothing_at_all(path: pathlib.Path, wrong: Any) -> None:
    store = opened(path)
    with pytest.raises(StoreError):
        store.merge({"g1/r0": entry("drained", 5), "g2/r0": wrong})
    assert store.admin() == {}


def test_a_full_disk_is_told_and_made_good_later(path: pathlib.Path, disk: Disk) -> None:
    store = opened(path)
    store.set(["g1/r0"], "drained", "", "a")
    disk.full = True
    assert store.set(["g2/r0"], "drained", "", "a") == ["g2/r0"]
    assert not store.is_active("g2/r0")
    assert "No space left on device" in store.problems[0] and str(path) in store.problems[0]
    assert not store.retry()
    # what was there is whole, and nothing half-written lies about
    assert opened(path).is_active("g2/r0") and not opened(path).is_active("g1/r0")
    assert [file.name for file in path.parent.iterdir()] == ["admin.json"]
    disk.full = False
    assert store.retry()
    assert store.problems == []
    assert not opened(path).is_active("g2/r0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 9, "replicas": {}, "balancer": {}, "leases": {}}',
        '{"version": 1, "replicas": {"a/b": {}}, "balancer": {}, "leases": {}}',
        '{"version": 1, "replicas": {}, "balancer": {"state": "asleep"}, "leases": {}}',
        '{"version": 1, "replicas": [], "balancer": {}, "leases": {}}',
        "\udcff",
    ],
)
def test_a_broken_file_is_set_aside_and_told(path: pathlib.Path, text: str) -> None:
    path.write_bytes(text.encode(errors="surrogateescape"))
    store = opened(path)
    assert store.admin() == {}
    assert f"set aside as {path}.broken" in store.problems[0]
    assert path.with_name("admin.json.broken").read_bytes() == text.encode(errors="surrogateescape")
    store.set(["g1/r0"], "drained", "", "a")
    assert not opened(path).is_active("g1/r0")


def test_a_file_that_cannot_be_read_is_not_overwritten(path: pathlib.Path) -> None:
    opened(path).merge({"g1/r0": entry("drained", 50), "g2/r0": entry("drained", 51), "g3/r0": entry("active", 52)})
    kept = path.read_text()
    path.unlink()
    path.mkdir()  # as good as an I/O error, for root, too
    store = opened(path)
    assert "cannot be read" in store.problems[0]
    store.set(["g2/r0"], "drained", "", "a")
    store.set(["g2/r0"], "active", "", "a")
    store.merge({"g3/r0": entry("drained", 7)})
    path.rmdir()
    path.write_text(kept)
    assert store.retry()
    # the drain of before is found again; what was decided meanwhile is later; what a peer told is as old as it is
    assert [store.intent(f"g{n}/r0").state for n in (1, 2, 3)] == ["drained", "active", "active"]
    assert (store.generation, opened(path).admin()) == (53, store.admin())


def test_presence_survives_a_restart(path: pathlib.Path) -> None:
    store = opened(path)
    assert store.set_balancer("away", "kernel", "alice")
    assert not store.set_balancer("away", "again", "bob")
    assert (opened(path).balancer.state, opened(path).balancer.by) == ("away", "alice")


# --- leases


def test_a_lease_keeps_others_out_until_it_ends(path: pathlib.Path, clock: Clock) -> None:
    store = opened(path, clock)
    store.take_lease("chat", "rollout-1", 120)
    clock.passed = 20
    with pytest.raises(LeaseHeld, match="pool chat is leased by rollout-1 for 100 s more"):
        store.take_lease("chat", "rollout-2", 120)
    with pytest.raises(LeaseHeld):
        store.release_lease("chat", "rollout-2")
    assert store.leases() == {"chat": {"holder": "rollout-1", "expires_in": 100.0}}
    clock.passed = 120
    assert store.leases() == {} and store.lease("chat") is None
    assert store.take_lease("chat", "rollout-2", 120).holder == "rollout-2"


def test_a_lease_is_prolonged_by_its_holder_and_given_back(path: pathlib.Path, clock: Clock) -> None:
    store = opened(path, clock)
    store.take_lease("chat", "rollout-1", 120)
    clock.passed = 100
    store.take_lease("chat", "rollout-1", 120)
    assert store.leases()["chat"]["expires_in"] == 120
    assert store.release_lease("chat", "rollout-1")
    assert not store.release_lease("chat", "rollout-1")
    assert store.leases() == {}


def test_a_lease_outlives_the_agent_and_not_its_time(path: pathlib.Path, clock: Clock) -> None:
    opened(path, clock).take_lease("chat", "rollout-1", 120)
    clock.passed = 50
    assert opened(path, clock).leases() == {"chat": {"holder": "rollout-1", "expires_in": 70.0}}
    clock.passed = 130
    assert opened(path, clock).leases() == {}


def test_a_lease_of_a_clock_that_went_wrong_ends_all_the_same(path: pathlib.Path, clock: Clock) -> None:
    opened(path, clock).take_lease("chat", "rollout-1", 120)
    found = json.loads(path.read_text())
    found["leases"]["chat"]["until"] += 1e9
    path.write_text(json.dumps(found))
    assert opened(path, clock).leases()["chat"]["expires_in"] <= 3600
