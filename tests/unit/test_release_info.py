"""What vllm_info tells about the releases of a host."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._release import info as release_info

from tests.ports import free_port
from tests.unit.conftest import ModuleResult


@pytest.fixture
def release(run_module: Callable[..., ModuleResult], release_args: dict[str, Any]) -> Callable[..., ModuleResult]:
    """Stages or activates a release that differs in the port, or marks one."""

    def do(state: str, port: int | None = None, **options: Any) -> ModuleResult:
        known = {name: release_args[name] for name in ("replica", "root", "owner", "group", "service")}
        if port is not None:
            known = {**release_args, "settings": {**release_args["settings"], "port": port}}
        result = run_module("vllm_release", {**known, "state": state, **options})
        assert not result.failed, result
        return result

    return do


@pytest.fixture
def seen(run_module: Callable[..., ModuleResult], release_args: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """What the module tells about the replica, which does not run."""

    def look() -> dict[str, Any]:
        replica = {"id": "gpu1/r0", "name": "r0", "url": f"http://127.0.0.1:{free_port()}"}
        result = run_module("vllm_info", {"replicas": [replica], "releases": release_args["root"]})
        assert not result.failed, result
        return result["replicas"][0]

    return look


def test_where_nothing_was_staged_there_is_nothing(seen: Callable[[], dict[str, Any]]) -> None:
    told = seen()
    assert told["releases"] == {"current": None, "pending": None, "previous": None}
    assert (told["release"], told["previous"], told["pending"], told["verified"]) == ("", "", "", False)


def test_each_release_says_what_it_is_and_what_it_would_change(
    release: Callable[..., ModuleResult], seen: Callable[[], dict[str, Any]], release_args: dict[str, Any]
) -> None:
    first = release("active", 8000)["release"]
    second = release("active", 8001)["release"]
    third = release("staged", 8002)["release"]
    release("verified")
    release("marked", release="staged", mark="bad", reason="the canary failed")
    release("marked", release="previous", mark="held", reason="rolled back")
    told = seen()
    assert (told["release"], told["previous"], told["pending"]) == (second, first, third)
    assert told["verified"]
    about = told["releases"]
    assert about["current"] == {
        "id": second,
        "version": "0.32.0",
        "model": "tiny",
        "model_revision": "a" * 40,
        "env": release_args["env"],
        "model_path": release_args["model"],
        "bad": "",
        "held": "",
        "usable": True,
        "problem": "",
        "differences": [],
    }
    assert (about["pending"]["id"], about["pending"]["bad"]) == (third, "the canary failed")
    assert about["pending"]["differences"] == [{"name": "port", "before": "8001", "after": "8002"}]
    assert (about["previous"]["id"], about["previous"]["held"]) == (first, "rolled back")
    assert about["previous"]["differences"] == [{"name": "port", "before": "8001", "after": "8000"}]


def test_a_switch_ends_verified_and_pending(
    release: Callable[..., ModuleResult], seen: Callable[[], dict[str, Any]]
) -> None:
    release("active", 8000)
    release("verified")
    release("staged", 8001)
    release("active")
    told = seen()
    assert (told["verified"], told["pending"], told["releases"]["pending"]) == (False, "", None)


def test_no_secret_is_told(
    release: Callable[..., ModuleResult], seen: Callable[[], dict[str, Any]], release_args: dict[str, Any]
) -> None:
    release("active", 8000)
    release("staged", 8001, secrets={"api-key": ["third-key-0123456789abcdef0123456789"]})
    told = seen()
    changes = {change["name"]: change for change in told["releases"]["pending"]["differences"]}
    assert set(changes) == {"port", "api-key", "secrets-fingerprint"}
    assert "VALUE_HIDDEN" in changes["api-key"]["before"]
    for key in (*release_args["secrets"]["api-key"], "third-key"):
        assert key not in json.dumps(told)


@pytest.mark.parametrize("gone", ["env", "model"])
def test_a_release_without_its_parts_is_not_usable(
    release: Callable[..., ModuleResult], seen: Callable[[], dict[str, Any]], release_args: dict[str, Any], gone: str
) -> None:
    release("active", 8000)
    release("staged", 8001)
    pathlib.Path(release_args[gone]).rmdir()
    about = seen()["releases"]
    for name in ("current", "pending"):
        assert not about[name]["usable"]
        assert about[name]["problem"] == f"needs {gone} {release_args[gone]}, which is gone"


def test_a_link_to_a_release_that_is_gone_is_told(
    release: Callable[..., ModuleResult], seen: Callable[[], dict[str, Any]], release_args: dict[str, Any]
) -> None:
    release("active", 8000)
    staged = release("staged", 8001)["release"]
    releases = pathlib.Path(release_args["root"]) / "r0" / "releases"
    (releases / staged).rename(releases / "elsewhere")
    about = seen()["releases"]["pending"]
    assert (about["id"], about["usable"], about["differences"]) == (staged, False, [])
    assert about["problem"] == f"is gone from {releases}"


def test_marks_that_cannot_be_read_are_a_failure_with_the_reason(
    run_module: Callable[..., ModuleResult], release: Callable[..., ModuleResult], release_args: dict[str, Any]
) -> None:
    release("active", 8000)
    (pathlib.Path(release_args["root"]) / "r0" / "marks.json").write_text("{")
    replica = {"id": "gpu1/r0", "name": "r0", "url": f"http://127.0.0.1:{free_port()}"}
    result = run_module("vllm_info", {"replicas": [replica], "releases": release_args["root"]})
    assert result.failed and "marks.json cannot be read" in result["msg"]


def test_the_running_release_is_that_of_the_unit(
    monkeypatch: pytest.MonkeyPatch, release: Callable[..., ModuleResult], release_args: dict[str, Any]
) -> None:
    release("active", 8000)
    monkeypatch.setattr(release_info, "running_release", {"vllm@r0.service": "0123456789ab"}.get)
    assert release_info.releases_of(release_args["root"], "r0")["running_release"] == "0123456789ab"
