"""Every benchmark starts by the command that its table of results names, in a shell that knows nothing of the tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .tree import ROOT

NAMES = sorted(path.parent.name for path in ROOT.glob("benchmarks/*/__main__.py"))


@pytest.mark.parametrize("name", NAMES)
def test_it_tells_its_options(name: str) -> None:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout
