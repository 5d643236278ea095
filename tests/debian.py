"""Programs of Debian packages for tests, unpacked below ``.cache`` and never installed on this machine."""

from __future__ import annotations

import functools
import pathlib
import shutil
import subprocess
import tempfile

import pytest

CACHE = pathlib.Path(__file__).resolve().parent.parent / ".cache" / "debian"


@functools.cache
def program(package: str, path: str) -> pathlib.Path:
    """Return a program of a package; skip the test where it is neither here nor to be had from apt."""
    if found := shutil.which(pathlib.Path(path).name):
        return pathlib.Path(found)
    home = CACHE / package
    if not home.exists():
        _fetch(package, home)
    return home / path


def _fetch(package: str, home: pathlib.Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip(f"needs {package}, and there is no apt-get to fetch it with")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        place = pathlib.Path(folder)
        done = subprocess.run(
            ["apt-get", "download", package], cwd=place, capture_output=True, text=True, timeout=120, check=False
        )
        archives = sorted(place.glob("*.deb"))
        if not archives:
            pytest.skip(f"needs {package}, and apt-get cannot fetch it: {done.stderr.strip()[-200:]}")
        (place / "root").mkdir()
        subprocess.run(["dpkg", "-x", str(archives[0]), str(place / "root")], check=True)
        (place / "root").rename(home)
