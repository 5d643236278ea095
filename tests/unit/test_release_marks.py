"""Marks of releases: what they refuse, what they outlive, and who takes them away."""

from __future__ import annotations

import json
import pathlib
import shutil
import stat
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.conftest import ModuleResult

RETRY = "or set llmops_rollout_retry=true to try it once more"


class Replica:
    """Releases of one replica, named by their port, and what is done with them."""

    def __init__(self, run_module: Callable[..., ModuleResult], args: dict[str, Any]) -> None:
        self._run, self._args = run_module, args
        self.home = pathlib.Path(args["root"]) / args["replica"]
        self.file = self.home / "marks.json"

    def describe(self, state: str, port: int, **more: Any) -> ModuleResult:
        settings = {**self._args["settings"], "port": port}
        return self._run("vllm_release", {**self._args, "state": state, "settings": settings}, **more)

    def do(self, state: str, *, check: bool = False, **options: str) -> ModuleResult:
        known = {name: self._args[name] for name in ("replica", "root", "owner", "group", "service")}
        return self._run("vllm_release", {**known, "state": state, **options}, check=check)

    def mark(self, mark: str, reason: str = "", release: str = "", *, check: bool = False) -> ModuleResult:
        options = {"mark": mark} | ({"reason": reason} if reason else {}) | ({"release": release} if release else {})
        return self.do("marked", check=check, **options)


@pytest.fixture
def replica(run_module: Callable[..., ModuleResult], release_args: dict[str, Any]) -> Replica:
    """A replica with a release in force (port 8000) and one that is staged (port 8001)."""
    replica = Replica(run_module, release_args)
    replica.describe("active", 8000)
    replica.describe("staged", 8001)
    return replica


@pytest.mark.parametrize("mark", ["bad", "held"])
def test_a_marked_release_is_refused_until_its_marks_are_gone(replica: Replica, mark: str) -> None:
    current = (replica.home / "current").readlink()
    foreseen = replica.mark(mark, "the canary failed", "staged", check=True)
    assert foreseen["changed"] and foreseen[mark] == "the canary failed" and not replica.file.exists()
    marked = replica.mark(mark, "the canary failed", "staged")
    assert marked["changed"] and marked["diff"] == foreseen["diff"]
    assert marked["diff"][0]["after"] == f"{mark}: the canary failed\n"
    assert not replica.mark(mark, "the canary failed", "staged")["changed"]

    for options in ({}, {"release": "staged"}, {"release": marked["staged"]}):
        for check in (True, False):
            refused = replica.do("active", check=check, **options)
            assert refused.failed
            assert f"release {marked['staged']} of replica r0 is marked {mark}: the canary failed: " in refused["msg"]
            assert refused["msg"].endswith(RETRY)
    assert replica.describe("active", 8001).failed
    assert (replica.home / "current").readlink() == current

    assert replica.mark("none", release="staged", check=True)["changed"] and replica.file.exists()
    cleared = replica.mark("none", release="staged")
    assert cleared["changed"] and (cleared["bad"], cleared["held"]) == ("", "")
    assert not replica.file.exists()
    assert not replica.mark("none", release="staged")["changed"]
    assert replica.do("active")["switched"]


def test_without_a_name_it_is_the_current_release_which_stays_in_force(replica: Replica) -> None:
    marked = replica.mark("bad", "slow")
    assert marked["release"] == marked["current"] and not marked["switched"]
    again = replica.do("active", release="current")
    assert not again.failed and not again["changed"] and again["bad"] == "slow"
    replica.do("active")
    assert "is marked bad: slow" in replica.do("active", release="previous")["msg"]


def test_marks_change_no_id_and_outlive_staging_anew_and_the_release_itself(replica: Replica) -> None:
    release = replica.mark("bad", "it crashed", "staged")["release"]
    staged = replica.describe("staged", 8001)
    assert not staged["changed"] and (staged["release"], staged["bad"]) == (release, "it crashed")
    (replica.home / "releases" / release / "config.yaml").unlink()
    repaired = replica.describe("staged", 8001)
    assert repaired["repaired"] == ["config.yaml"] and repaired["bad"] == "it crashed"
    shutil.rmtree(replica.home / "releases" / release)
    anew = replica.describe("staged", 8001)
    assert anew["changed"] and (anew["release"], anew["bad"]) == (release, "it crashed")


def test_a_release_can_have_both_marks_and_another_one_its_own(replica: Replica) -> None:
    replica.mark("bad", "errors", "staged")
    both = replica.mark("held", "rolled\n  back", "staged")
    assert (both["bad"], both["held"]) == ("errors", "rolled back")
    other = replica.mark("held", "other")
    assert (other["bad"], other["held"]) == ("", "other")
    replica.mark("none")
    kept = json.loads(replica.file.read_text())
    assert kept == {both["release"]: {"bad": "errors", "held": "rolled back"}}
    assert stat.S_IMODE(replica.file.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "state is marked but all of the following are missing: mark"),
        ({"mark": "bad"}, "mark is bad but all of the following are missing: reason"),
        ({"mark": "held"}, "mark is held but all of the following are missing: reason"),
        ({"mark": "bad", "reason": " \n"}, "reason is empty: say why release"),
        ({"mark": "bad", "reason": "x", "release": "previous"}, "replica r0 has no previous release"),
        ({"mark": "bad", "reason": "x", "release": "0123456789ab"}, "replica r0 has no release 0123456789ab in "),
    ],
)
def test_what_marks_nothing_is_refused(replica: Replica, options: dict[str, str], words: str) -> None:
    refused = replica.do("marked", **options)
    assert refused.failed and words in refused["msg"]
    assert not replica.file.exists()


def test_marks_of_a_release_that_was_removed_can_be_taken_away(replica: Replica) -> None:
    release = replica.mark("bad", "x", "staged")["release"]
    replica.describe("staged", 8000)
    shutil.rmtree(replica.home / "releases" / release)
    assert replica.mark("none", release=release)["changed"]
    assert not replica.mark("none", release=release)["changed"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}'])
def test_a_broken_file_of_marks_is_not_taken_for_no_marks(replica: Replica, text: str) -> None:
    replica.file.write_text(text)
    refused = replica.do("active")
    assert refused.failed and f"{replica.file} cannot be read" in refused["msg"]
    assert "remove it and all marks with it" in refused["msg"]


def test_a_replica_that_does_not_exist_is_not_made_by_a_mark(
    run_module: Callable[..., ModuleResult], release_args: dict[str, Any]
) -> None:
    bare = Replica(run_module, release_args)
    assert "replica r0 has no current release" in bare.mark("bad", "x")["msg"]
    assert not bare.home.exists()
