"""Environments beside ``.venv``, for tools that cannot live in it: made when first needed, by ``tools/bootstrap``.

Each comes from a hash-locked file (requirements/NAME.txt) and lies below ``.sandbox``, where ``make demo-down`` finds
it.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

from .one_at_a_time import one_at_a_time
from .sandbox.layout import ROOT, STATE

# Versions of Python that the environment may have; it is locked for the first.
PYTHONS = {
    "importer": ("3.11", "3.12"),
    "router": ("3.11",),
    "core-2.17": ("3.11", "3.12"),
    "core-2.19": ("3.11", "3.12", "3.13"),
    "core-2.21": ("3.12", "3.13", "3.14"),
}


class NoInterpreter(Exception):
    """This machine has no Python that the environment could have, and can fetch none."""


def ensure(name: str) -> pathlib.Path:
    """Make the environment unless it is there and return its folder; raise NoInterpreter where that cannot be."""
    place = STATE / "environments" / name
    python = next(_interpreters(PYTHONS[name]), None)
    # Where there is none, uv fetches one, if it can reach the place where they are published.
    words = [f"requirements/{name}.txt", str(place.relative_to(ROOT)), python or PYTHONS[name][0]]
    with one_at_a_time(place):
        done = subprocess.run(
            [str(ROOT / "tools" / "bootstrap"), *words], cwd=ROOT, check=False, capture_output=True, text=True
        )
    told = (done.stdout + done.stderr).strip()
    if done.returncode != 0 and python is None:
        wanted = " or ".join(PYTHONS[name])
        why = told.splitlines()[-1].strip()
        raise NoInterpreter(f"{name} needs Python {wanted}: none is on this machine, and uv got none: {why}")
    if done.returncode != 0:
        raise RuntimeError(f"tools/bootstrap {' '.join(words)} ended with {done.returncode}:\n{told}")
    return place


def _interpreters(versions: tuple[str, ...]) -> Iterator[str]:
    """Find interpreters that really run: this one, those on PATH, those that pyenv keeps; the first version first."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    for version in versions:
        kept = sorted(pyenv.glob(f"{version}.*/bin/python3"))
        for found in (sys.executable, shutil.which(f"python{version}"), *map(str, kept)):
            if found and _version(found) == version:
                yield found


def _version(python: str) -> str:
    """Return the interpreter's version as ``3.11``, or nothing: a shim of pyenv is found, but may not run."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
