"""What several gates look at: the collection as it is shipped."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a working copy has besides, and no archive may hold.
PRIVATE = [".sandbox/secrets.json", ".venv/pyvenv.cfg", "tests/output/log", "llmops-vllm-0.0.9.tar.gz"]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The archive that users install, built from a clone, so that what git ignores cannot make a gate pass."""
    base = tmp_path_factory.mktemp("archive")
    clone = base / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    for private in PRIVATE:
        (clone / private).parent.mkdir(parents=True, exist_ok=True)
        (clone / private).write_text("secret")
    command = ["ansible-galaxy", "collection", "build", "--output-path", str(base), str(clone)]
    env = dict(os.environ, ANSIBLE_HOME=str(base / "home"))
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return next(base.glob("llmops-vllm-*.tar.gz"))
