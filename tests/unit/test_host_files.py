"""host_files: several files in one step, all of them checked before the first one is written."""

from __future__ import annotations

import os
import pathlib
import stat
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
VALID = (
    f"""{sys.executable} -c "import sys; sys.exit('broken' in open(sys.argv[1]).read() and 'line 1 is broken')" %s"""
)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "etc"


@pytest.fixture
def wish(etc: pathlib.Path) -> dict[str, Any]:
    """Two files in a directory that is not there yet."""
    return {
        "directories": [{"path": str(etc / "rules"), "mode": "0750"}],
        "files": [
            {"path": str(etc / "rules/a.yml"), "content": "a: 1\n", "validate": VALID},
            {"path": str(etc / "rules/b.yml"), "content": "ü: 2\n", "mode": "0600"},
        ],
        "mode": "0640",
    }


def test_files_and_directories_are_made_as_asked_for(run_module: Run, wish: dict[str, Any], etc: pathlib.Path) -> None:
    os.umask(0o022)
    done = run_module("host_files", wish)
    assert done["changed"] and done["paths"] == [str(etc / name) for name in ("rules", "rules/a.yml", "rules/b.yml")]
    assert (etc / "rules/b.yml").read_text(encoding="utf-8") == "ü: 2\n"
    modes = [mode(etc / name) for name in (".", "rules", "rules/a.yml", "rules/b.yml")]
    assert modes == [0o755, 0o750, 0o640, 0o600]
    assert {"before": "", "after": "a: 1\n"}.items() <= done["diff"][1].items()
    again = run_module("host_files", wish)
    assert not again["changed"] and not again["paths"] and not again["diff"]


def test_a_dry_run_foretells_and_writes_nothing(run_module: Run, wish: dict[str, Any], etc: pathlib.Path) -> None:
    foreseen = run_module("host_files", wish, check=True)
    assert not etc.exists()
    done = run_module("host_files", wish)
    assert (foreseen["paths"], foreseen["changed"]) == (done["paths"], True)
    assert foreseen["diff"] == done["diff"]


def test_one_that_is_not_valid_leaves_all_as_they_were(
    run_module: Run, wish: dict[str, Any], etc: pathlib.Path
) -> None:
    run_module("host_files", wish)
    wish["files"][1]["content"] = "ü: 3\n"
    wish["files"][0]["content"] = "broken\n"
    failed = run_module("host_files", wish)
    path = etc / "rules/a.yml"
    assert failed.failed
    assert failed["msg"] == f"{path} is not valid, nothing was written: {sys.executable} says: line 1 is broken"
    assert (path.read_text(), (etc / "rules/b.yml").read_text(encoding="utf-8")) == ("a: 1\n", "ü: 2\n")


def test_only_what_differs_is_checked_and_told(run_module: Run, wish: dict[str, Any], etc: pathlib.Path) -> None:
    run_module("host_files", wish)
    wish["files"][0]["validate"] = "false %s"
    wish["files"][1]["content"] = "ü: 3\n"
    done = run_module("host_files", wish)
    assert done["paths"] == [str(etc / "rules/b.yml")] and not done.failed
    (etc / "rules/a.yml").chmod(0o644)
    done = run_module("host_files", wish)
    assert done["paths"] == [str(etc / "rules/a.yml")] and mode(etc / "rules/a.yml") == 0o640
    assert done["diff"][0]["before"] == "mode: 0644\n" and done["diff"][0]["after"] == "mode: 0640\n"


def test_what_else_lies_in_a_directory_goes(run_module: Run, wish: dict[str, Any], etc: pathlib.Path) -> None:
    run_module("host_files", wish)
    (etc / "rules/old.yml").write_text("old")
    (etc / "rules/kept.d").mkdir()
    wish |= {"alone_in": [str(etc / "rules"), str(etc / "absent")]}
    foreseen = run_module("host_files", wish, check=True)
    assert foreseen["paths"] == [str(etc / "rules/old.yml")] and (etc / "rules/old.yml").exists()
    assert run_module("host_files", wish)["paths"] == foreseen["paths"]
    assert sorted(path.name for path in (etc / "rules").iterdir()) == ["a.yml", "b.yml", "kept.d"]


def test_a_diff_need_not_hold_what_is_in_a_file(run_module: Run, wish: dict[str, Any]) -> None:
    wish["files"][0]["show_diff"] = False
    done = run_module("host_files", wish)
    assert "a: 1" not in str(done["diff"]) and "ü: 2" in str(done["diff"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"files": [{"path": "etc/a", "content": ""}]}, "path is 'etc/a', needed is a whole one, such as"),
        ({"files": [{"path": "/etc/a", "content": "", "validate": "true"}]}, "validate of /etc/a is 'true', needed is"),
        ({"directories": []}, "rules/a.yml: its directory is not there; name it among the directories"),
    ],
)
def test_what_cannot_be_meant_is_said(run_module: Run, wish: dict[str, Any], more: dict[str, Any], words: str) -> None:
    failed = run_module("host_files", {**wish, **more})
    assert failed.failed and words in failed["msg"]


def test_what_stands_in_the_way_is_named(run_module: Run, wish: dict[str, Any], etc: pathlib.Path) -> None:
    etc.mkdir()
    (etc / "rules").write_text("")
    failed = run_module("host_files", wish)
    assert failed["msg"] == f"{etc / 'rules'} is no directory: remove it, or give another path"
    (etc / "rules").unlink()
    (etc / "rules/a.yml").mkdir(parents=True)
    failed = run_module("host_files", wish)
    assert failed["msg"] == f"{etc / 'rules/a.yml'} is a directory, needed is a file: remove it, or give another path"
