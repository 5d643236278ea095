"""Linters, each a test: a finding fails the run and is printed."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from tools.checkout import collections_path

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINTERS = {
    "ruff-check": ["ruff", "check", "."],
    "ruff-format": ["ruff", "format", "--check", "."],
    "yamllint": ["yamllint", "--strict", "."],
    "changelog": ["antsibull-changelog", "lint"],
    # what to check stands in pyproject.toml
    "mypy": ["mypy", "--no-error-summary"],
    "ansible-lint": ["ansible-lint", "--offline", "--strict", "-q"],
}


@pytest.mark.parametrize("name", LINTERS)
def test_linter_finds_nothing(name: str) -> None:
    env = dict(os.environ, MYPYPATH=str(collections_path()))
    done = subprocess.run(LINTERS[name], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(LINTERS[name])}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
