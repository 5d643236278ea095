"""The table at the end of a run: a person must see what ran, and what did not and why."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = """
import pytest

@pytest.mark.parametrize("name", ["mypy", "ruff"])
def test_linter_finds_nothing(name):
    assert name == "mypy"

def test_newest_core():
    pytest.skip("no Python 3.99")
"""


def test_named_gates_results_and_reasons_stand_above_the_closing_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tests" / "gates").mkdir(parents=True)
    (tmp_path / "tests" / "gates" / "test_lint.py").write_text(TESTS)
    page = tmp_path / "RESULTS.md"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.gate_table"]
    options = ["--rootdir", str(tmp_path), f"--table={page}", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, check=False, capture_output=True, text=True)
    table = re.sub(r" +\d+\.\d  ", " # ", done.stdout)  # seconds differ
    assert "\nlint: linter finds nothing [mypy] # 1 passed\n" in table
    assert "\nlint: linter finds nothing [ruff] # 1 failed\n" in table
    assert "\nlint: newest core # 1 skipped; not run: no Python 3.99\n" in table
    assert re.fullmatch(r"=+ 1 failed, 1 passed, 1 skipped in .*=", done.stdout.splitlines()[-1])
    assert re.search(r"^\| lint: newest core \| \S+ \| 1 skipped; not run: no Python 3\.99 \|$", page.read_text(), re.M)
