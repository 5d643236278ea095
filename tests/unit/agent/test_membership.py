"""The membership: what a file must be, what a slip must not do, and what outlives the agent."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import roster
from ansible_collections.llmops.vllm.plugins.module_utils._agent.membership import Membership


def replica(number: int, **more: Any) -> dict[str, Any]:
    row = {"id": f"g{number}/r0", "pool": "chat", "address": f"192.0.2.{number}", "port": 8000, "model": "llama"}
    return {**row, **more}


class Fleet:
    """The directory of writers, and an agent that watches it."""

    def __init__(self, base: pathlib.Path) -> None:
        self.directory = base / "pools.d"
        self.directory.mkdir()
        self.memory = base / "membership.json"
        self.drained: set[str] = set()
        self.start()

    def start(self) -> Membership:
        self.seen = Membership(self.directory, self.memory, lambda replica: replica not in self.drained)
        return self.seen

    def write(self, *replicas: dict[str, Any], writer: str = "site", **more: Any) -> bool:
        document = {"version": 1, "writer": writer, "replicas": list(replicas), **more}
        return self.text(json.dumps(document), writer)

    def text(self, text: str, writer: str = "site") -> bool:
        beside = self.directory / f".{writer}.new"
        beside.write_text(text)
        beside.replace(self.directory / f"{writer}.json")
        return self.seen.poll()

    @property
    def ids(self) -> list[str]:
        return [member.id for member in self.seen.members]


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> Fleet:
    return Fleet(tmp_path)


def test_files_of_several_writers_are_one_membership(fleet: Fleet) -> None:
    assert fleet.write(replica(2), replica(1))
    assert fleet.write(replica(3), writer="autoscaler")
    assert (fleet.ids, fleet.seen.writers) == (["g1/r0", "g2/r0", "g3/r0"], ["autoscaler", "site"])
    assert fleet.seen.problems == []
    assert fleet.seen.members[0].address == "192.0.2.1"


def test_nothing_new_is_no_change_and_reads_no_file(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.write(replica(1))
    monkeypatch.setattr(roster, "parse", None)
    assert not fleet.seen.poll()


def test_the_digest_tells_members_and_not_who_wrote_them(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    other = Fleet(tmp_path / "other")
    fleet.write(replica(1), replica(2))
    other.write(replica(1), writer="a")
    assert fleet.seen.digest != other.seen.digest
    other.write(replica(2), writer="b")
    assert fleet.seen.digest == other.seen.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "g1"}, "has the id 'g1'; <host>/<name> is wanted"),
        ({"id": "g1/../x"}, "has the id"),
        ({"pool": ""}, "has the pool ''"),
        ({"address": "192.0.2.256"}, "has the address '192.0.2.256'"),
        ({"address": "a b"}, "an IP address or a name is wanted"),
        ({"address": "x" * 300}, "has the address"),
        ({"port": 0}, "has the port 0; a number from 1 to 65535"),
        ({"port": "8000"}, "has the port '8000'"),
        ({"port": True}, "has the port True"),
        ({"model": ""}, "has the model ''"),
        ({"weight": 1}, "replicas[0] has the unknown key 'weight'"),
    ],
)
def test_a_wrong_entry_leaves_what_was_said_before_in_force(fleet: Fleet, change: dict[str, Any], words: str) -> None:
    fleet.write(replica(1), replica(2))
    assert not fleet.write(replica(1, **change))
    assert fleet.ids == ["g1/r0", "g2/r0"]
    assert len(fleet.seen.problems) == 1
    assert words in fleet.seen.problems[0] and f"{fleet.directory}/site.json" in fleet.seen.problems[0]
    assert "stays in force" in fleet.seen.problems[0]


@pytest.mark.parametrize("address", ["2001:db8::1", "gpu1", "gpu-1.example.com", "192.0.2.9"])
def test_addresses_that_are_taken(fleet: Fleet, address: str) -> None:
    assert fleet.write(replica(1, address=address))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"version": 1, "writer": "site"}', "lacks replicas"),
        ('{"version": 2, "writer": "site", "replicas": []}', "has version 2; this agent reads 1"),
        ('{"version": 1, "writer": "autoscaler", "replicas": []}', "says writer 'autoscaler'; the name of the file"),
        ('{"version": 1, "writer": "site", "replicas": {}}', "has no list as replicas"),
        ('{"version": 1, "writer": "site", "replicas": [1]}', "replicas[0] is no object"),
        ('{"version": 1, "writer": "site", "replicas": [], "remove_active": "yes"}', "says remove_active 'yes'"),
        ("x" * (4 * 1024 * 1024 + 1), "is larger than 4 MiB"),
    ],
)
def test_a_broken_file_is_told_and_mended_later(fleet: Fleet, text: str, words: str) -> None:
    fleet.write(replica(1))
    assert not fleet.text(text)
    assert fleet.ids == ["g1/r0"]
    assert words in fleet.seen.problems[0]
    assert fleet.write(replica(1), replica(2))
    assert fleet.seen.problems == []


def test_a_file_that_is_no_text_or_no_file_is_told(fleet: Fleet) -> None:
    fleet.write(replica(1))
    (fleet.directory / "site.json").write_bytes(b"\xff\xfe")
    (fleet.directory / "autoscaler.json").mkdir()
    fleet.seen.poll()
    assert fleet.ids == ["g1/r0"]
    assert any("site.json is no text" in text for text in fleet.seen.problems)
    assert any("autoscaler.json cannot be read" in text for text in fleet.seen.problems)


def test_twice_in_one_file_breaks_it(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(1, address="192.0.2.9"))
    assert "names the replica g1/r0 twice" in fleet.seen.problems[0]
    fleet.write(replica(1), replica(2, address="192.0.2.1"))
    assert "gives 192.0.2.1:8000 to g1/r0 and to g2/r0" in fleet.seen.problems[0]


def test_twice_in_two_files_counts_for_who_had_it_and_names_both(fleet: Fleet) -> None:
    fleet.write(replica(1))
    fleet.write(replica(1, port=9000), replica(2, address="192.0.2.1"), replica(3), writer="autoscaler")
    assert [(member.id, member.port) for member in fleet.seen.members] == [("g1/r0", 8000), ("g3/r0", 8000)]
    assert len(fleet.seen.problems) == 2
    for text in fleet.seen.problems:
        assert f"{fleet.directory}/site.json and {fleet.directory}/autoscaler.json both name" in text
        assert "that of site counts" in text


# --- removal


def test_an_active_replica_stays_although_its_writer_dropped_it(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(2))
    assert not fleet.write(replica(1))
    assert fleet.ids == ["g1/r0", "g2/r0"]
    problem = fleet.seen.problems[0]
    assert "names no more g2/r0, which is active" in problem
    assert "llm-balancer drain g2/r0" in problem and "remove_active: true" in problem


def test_it_goes_as_soon_as_it_is_drained(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(2))
    fleet.write(replica(1))
    fleet.drained.add("g2/r0")
    assert fleet.seen.poll()
    assert (fleet.ids, fleet.seen.problems) == (["g1/r0"], [])
    assert not fleet.seen.poll()


def test_it_goes_at_once_when_the_writer_means_it(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(2))
    assert fleet.write(replica(1), remove_active=True)
    assert (fleet.ids, fleet.seen.problems) == (["g1/r0"], [])


def test_a_file_that_is_gone_drops_nothing_that_is_active(fleet: Fleet) -> None:
    fleet.write(replica(1))
    fleet.write(replica(2), replica(3), writer="autoscaler")
    fleet.drained.add("g3/r0")
    (fleet.directory / "autoscaler.json").unlink()
    assert fleet.seen.poll()
    assert fleet.ids == ["g1/r0", "g2/r0"]
    assert "autoscaler.json is gone with g2/r0, which is active" in fleet.seen.problems[0]


def test_a_replica_may_move_to_another_writer_and_change_its_address(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(2))
    fleet.write(replica(2, address="192.0.2.77"), writer="autoscaler")
    assert fleet.write(replica(1))
    assert [member.address for member in fleet.seen.members] == ["192.0.2.1", "192.0.2.77"]
    assert fleet.seen.problems == []


def test_a_new_name_for_an_address_waits_until_the_old_one_is_drained(fleet: Fleet) -> None:
    fleet.write(replica(1))
    assert not fleet.write(replica(1, id="g1/main"))
    assert fleet.ids == ["g1/r0"]
    fleet.drained.add("g1/r0")
    assert fleet.seen.poll()
    assert (fleet.ids, fleet.seen.problems) == (["g1/main"], [])


def test_a_directory_that_is_gone_changes_nothing(fleet: Fleet) -> None:
    fleet.write(replica(1))
    fleet.directory.rename(fleet.directory.with_name("elsewhere"))
    assert not fleet.seen.poll()
    assert fleet.ids == ["g1/r0"]
    assert "cannot be read (No such file or directory): the members stay as they are" in fleet.seen.problems[0]
    fleet.directory.with_name("elsewhere").rename(fleet.directory)
    fleet.seen.poll()
    assert fleet.seen.problems == []


# --- restart


def test_a_restart_with_a_broken_file_keeps_the_members(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(2))
    fleet.write(replica(3), writer="autoscaler")
    fleet.text("{")
    fleet.start()
    assert fleet.ids == ["g1/r0", "g2/r0", "g3/r0"]
    fleet.seen.poll()
    assert fleet.ids == ["g1/r0", "g2/r0", "g3/r0"]
    assert "site.json is no JSON" in fleet.seen.problems[0]


def test_a_restart_does_not_forget_what_was_refused(fleet: Fleet) -> None:
    fleet.write(replica(1), replica(2))
    fleet.write(replica(1))
    fleet.start()
    fleet.seen.poll()
    assert fleet.ids == ["g1/r0", "g2/r0"]
    assert "names no more g2/r0" in fleet.seen.problems[0]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"writer": "site"}]', "{}x"])
def test_a_broken_memory_is_set_aside_and_the_files_count(fleet: Fleet, text: str) -> None:
    fleet.write(replica(1))
    fleet.memory.write_text(text)
    fleet.start()
    assert fleet.seen.poll()
    assert fleet.ids == ["g1/r0"]
    assert f"set aside as {fleet.memory}.broken" in fleet.seen.problems[0]


def test_a_memory_that_cannot_be_written_is_told_and_tried_again(fleet: Fleet) -> None:
    fleet.memory.mkdir()
    fleet.start()
    assert fleet.write(replica(1))
    assert any("a restart would not know the members" in text for text in fleet.seen.problems)
    fleet.memory.rmdir()
    fleet.seen.poll()
    assert fleet.seen.problems == []
    assert fleet.memory.is_file()
