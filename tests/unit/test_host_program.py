"""Programs of ours on a host: they start from what the module installed, and change places at once."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

PACKAGE = "ansible_collections.llmops.vllm.plugins.module_utils"
Run = Callable[..., Any]


@pytest.fixture
def program(run_module: Run, tmp_path: pathlib.Path) -> Run:
    def run(name: str, *, check: bool = False) -> Any:
        return run_module("host_program", {"name": name, "path": str(tmp_path / "lib" / name)}, check=check)

    return run


def start(place: pathlib.Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start it as a unit does, with nothing of this checkout in its path."""
    return subprocess.run(
        [sys.executable, "-m", f"{PACKAGE}.{module}", *arguments],
        cwd=place,
        env={"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "module", "told"),
    [
        ("agent", "_agent.cli", "usage: llm-balancer"),
        ("agent", "_agent.daemon", "config.json"),
        ("agent", "_agent.nginx_apply", "nginx-view"),
        ("watchdog", "_watchdog.main", "config.json"),
    ],
)
def test_each_program_starts_from_what_was_installed(
    program: Run, tmp_path: pathlib.Path, name: str, module: str, told: str
) -> None:
    program(name)
    arguments = ["--help"] if module == "_agent.cli" else [str(tmp_path / "nginx-view/config.json"), str(tmp_path)]
    done = start(tmp_path / "lib" / name / "current", module, *arguments)
    assert told in done.stdout + done.stderr
    assert "ModuleNotFoundError" not in done.stderr


def test_nothing_of_ours_that_it_does_not_need_comes_along(program: Run, tmp_path: pathlib.Path) -> None:
    program("watchdog")
    files = {path.name for path in (tmp_path / "lib/watchdog/current/").rglob("*.py")}
    assert "main.py" in files and not files & {"daemon.py", "_vllm/flags.py", "host_program.py"}


def test_check_mode_foresees_and_a_second_run_changes_nothing(program: Run, tmp_path: pathlib.Path) -> None:
    foreseen = program("agent", check=True)
    assert foreseen["changed"] and not (tmp_path / "lib").exists()
    done = program("agent")
    assert done["changed"] and done["diff"] == foreseen["diff"] and done["diff"]["before"] == "absent\n"
    assert not program("agent")["changed"] and not program("agent", check=True)["changed"]


def test_another_user_may_read_it_whatever_the_umask(program: Run, tmp_path: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        program("agent")
    finally:
        os.umask(before)
    place = tmp_path / "lib" / "agent"
    modes = {path.stat().st_mode & 0o777 for path in [place, *place.rglob("*")]}
    assert modes <= {0o755, 0o644}


def test_a_version_takes_the_place_of_another_and_removes_it(program: Run, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "lib" / "agent"
    (place / "0123456789ab").mkdir(parents=True)
    (place / ".new-cut-short").mkdir()
    (place / "current").symlink_to(place / "0123456789ab")
    result = program("agent")
    assert result["diff"]["before"] == "0123456789ab\n"
    assert sorted(path.name for path in place.iterdir()) == sorted([result["version"], "current"])
    assert (place / "current").resolve().name == result["version"]


def test_a_file_that_somebody_changed_is_put_right(program: Run, tmp_path: pathlib.Path) -> None:
    program("agent")
    victim = next((tmp_path / "lib/agent/current/").rglob("daemon.py"))
    text = victim.read_text()
    victim.write_text("raise SystemExit('mine')\n")
    assert program("agent", check=True)["changed"]
    assert program("agent")["changed"]
    assert victim.read_text() == text


def test_what_is_in_the_way_is_named(program: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/agent").write_text("")
    result = program("agent")
    assert result.failed and str(tmp_path / "lib/agent") in result["msg"]
