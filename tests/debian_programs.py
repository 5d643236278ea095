"""Debian's programs for tests, this machine's own or out of their packages, and running them."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

import pytest

from tools import debian_packages


def program(package: str, name: str) -> pathlib.Path:
    """Return this machine's program, or that of the package; skips the test, with the reason, where there is none."""
    if found := shutil.which(name):
        return pathlib.Path(found)
    try:
        return debian_packages.unpacked(package) / "usr" / "bin" / name
    except debian_packages.NoPackage as reason:
        pytest.skip(f"Debian's {package} cannot be had here: {reason}")


def among_its_files(package: str) -> list[str]:
    """Return the words before a command that lets it find ``/usr/share`` of its package, in a mount of its own."""
    share = program(package, package).parent.parent / "share"
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'mount --bind {share} /usr/share && exec "$@"', "sh"]
    tried = subprocess.run([*words, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mounts of its own can be had here: {tried.stderr.strip()}")
    return words


@contextlib.contextmanager
def serving(
    command: Sequence[str | pathlib.Path], ready: Callable[[], bool], log: pathlib.Path, seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, which begins when it is ready; fail with its log when it is not in time."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        end = time.monotonic() + seconds
        while not _is(ready):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()  # what they have to write to is not there
        process.wait()


def _is(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:  # nobody listens yet
        return False


def answers(url: str) -> bool:
    """Tell whether the address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
