"""The role llm_model on three hosts, which are directories of this machine: a model comes from its source once."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import plain_ansible
from tests.fakes.mirror import FakeMirror
from tools import tiny_model
from tools.checkout import collections_path

WEIGHTS = "model.safetensors"
HOSTS = ("gpu1", "gpu2", "gpu3")


@dataclass
class Ended:
    rc: int
    out: str

    def changed(self) -> dict[str, int]:
        """Return host -> number of changed tasks, as the recap has it."""
        return {host: int(count) for host, count in re.findall(r"^(\w+) +: .*?changed=(\d+)", self.out, re.MULTILINE)}


class Fleet:
    """Three hosts that want one model."""

    def __init__(self, folder: pathlib.Path, source: str) -> None:
        self.folder, self.source = folder, source

    def path(self, host: str) -> pathlib.Path:
        return self.folder / host / "tiny" / "r1"

    def run(self, *words: str, **variables: Any) -> Ended:
        """Run the role, with more variables, and with ``host_x`` for one host alone."""
        hosts: dict[str, Any] = {
            host: {"llm_model_root": str(self.folder / host), "ansible_connection": "local", **variables.pop(host, {})}
            for host in HOSTS
        }
        common = {
            "ansible_python_interpreter": sys.executable,
            "llm_model_revisions": [{"name": "tiny", "revision": "r1", "source": self.source}],
            "llm_model_reader": "",
            "llm_model_min_free_bytes": 0,
            "llm_model_peer_address": "127.0.0.1",
            **variables,
        }
        (self.folder / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
        play = {"hosts": "all", "gather_facts": False, "roles": ["llmops.vllm.llm_model"]}
        (self.folder / "play.yml").write_text(json.dumps([play]))
        command = [
            pathlib.Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            "inventory.json",
            "play.yml",
            *words,
        ]
        env = plain_ansible.environment(self.folder, ANSIBLE_COLLECTIONS_PATH=str(collections_path()))
        env.update(ANSIBLE_LOCALHOST_WARNING="0", ANSIBLE_PIPELINING="1", ANSIBLE_ASYNC_DIR=str(self.folder / "jobs"))
        done = subprocess.run(
            command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return Ended(done.returncode, done.stdout)

    def whole(self) -> list[str]:
        """Return the hosts whose revision has the checksums that it says."""
        check = ["sha256sum", "--quiet", "-c", "SHA256SUMS"]
        there = [host for host in HOSTS if self.path(host).is_dir()]
        return [host for host in there if subprocess.run(check, cwd=self.path(host), check=False).returncode == 0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny_model.write(tmp_path_factory.mktemp("source") / "a", "a")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def mirror(files: dict[str, bytes]) -> Iterator[FakeMirror]:
    with FakeMirror(files) as fake:
        yield fake


def test_source_is_asked_once_and_a_second_run_changes_nothing(tmp_path: pathlib.Path, mirror: FakeMirror) -> None:
    fleet = Fleet(tmp_path, mirror.address)
    foretold = fleet.run("--check")
    assert (foretold.rc, set(foretold.changed().values())) == (0, {1}), foretold.out
    assert mirror.requests == []
    first = fleet.run()
    assert (first.rc, set(first.changed().values())) == (0, {1}), first.out
    assert fleet.whole() == list(HOSTS)
    assert mirror.begun().count(WEIGHTS) == 1
    second = fleet.run()
    assert (second.rc, set(second.changed().values())) == (0, {0}), second.out
    assert "Serve models to peers" not in second.out


def test_host_that_cannot_bring_it_stops_no_other(tmp_path: pathlib.Path, mirror: FakeMirror) -> None:
    """The first one has no room, so nobody serves; then one that has it does."""
    fleet = Fleet(tmp_path, mirror.address)
    done = fleet.run(gpu1={"llm_model_min_free_bytes": 1 << 62})
    assert done.rc == 2
    assert fleet.whole() == ["gpu2", "gpu3"]
    asked = mirror.begun().count(WEIGHTS)
    assert fleet.run().rc == 0
    assert fleet.whole() == list(HOSTS)
    assert mirror.begun().count(WEIGHTS) == asked


def test_source_is_asked_where_peers_cannot_be_reached(tmp_path: pathlib.Path, mirror: FakeMirror) -> None:
    fleet = Fleet(tmp_path, mirror.address)
    done = fleet.run(llm_model_peer_address="192.0.2.77")
    assert done.rc == 0, done.out
    assert "cannot listen on 192.0.2.77" in done.out
    assert "Its peers ask the source" in done.out
    assert fleet.whole() == list(HOSTS)
    assert mirror.begun().count(WEIGHTS) == 3


def test_files_of_the_controller_are_copied_once(tmp_path: pathlib.Path) -> None:
    folder = tiny_model.write(tmp_path / "a", "a")
    fleet = Fleet(tmp_path, f"controller://{folder}")
    done = fleet.run()
    assert done.rc == 0, done.out
    assert fleet.whole() == list(HOSTS)
    assert done.changed() == {"gpu1": 3, "gpu2": 1, "gpu3": 1}


def test_who_waits_sees_how_far_it_is_and_a_failure_in_its_own_words(
    tmp_path: pathlib.Path, mirror: FakeMirror
) -> None:
    fleet = Fleet(tmp_path, mirror.address)
    rate = sum(map(len, mirror.files.values())) // 6
    alone = fleet.run("--limit", "gpu1", llm_model_bandwidth_bytes_per_second=rate)
    assert alone.rc == 0, alone.out
    assert re.search(r"^gpu1: tiny r1: \d+ % \(0.0 of 0.0 GB\)", alone.out, re.MULTILINE), alone.out
    mirror.status = 404
    refused = fleet.run("--limit", "gpu2")
    assert refused.rc == 2
    assert "SHA256SUMS: 404 Not Found. What was downloaded" in refused.out
