"""Brings promtool into ``.cache/promtool``: Debian 12's 2.42, and the 3.x of Debian's unstable suite.

It brings Prometheus itself, too. ``python -m tools.promtool`` prints the paths of promtool. Packages come by apt's own
tools, with a configuration of their own in that folder: nothing is installed, the machine's lists stay as they are, and
signatures are checked as apt always does.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "promtool"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Suites by the version that they have.
VERSIONS = {"2.42": "bookworm", "3": "sid"}


class NoPromtool(Exception):
    """This version cannot be had here; the message says why."""


@functools.cache
def ensure(version: str, name: str = "promtool") -> pathlib.Path:
    """Return the program of this name, fetched unless it is there."""
    suite = VERSIONS[version]
    package = "prometheus" if suite == "bookworm" else name  # since 3.x promtool is a package of its own
    place = PLACE / suite / package
    program = place / "usr" / "bin" / name
    if not program.exists():
        _fetch(place, suite, package)
    return program


def _fetch(place: pathlib.Path, suite: str, package: str) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial", "unpacked"):
        (place / folder).mkdir(parents=True)
    (place / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    options = {
        "Dir::State": place / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": place / "cache",
        "Dir::Etc::sourcelist": place / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Sandbox::User": "root",  # the checkout may be one that the user _apt cannot enter
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *words, "-qq", "update"], place)
    _run(["apt-get", *words, "-qq", "download", package], place)
    for archive in place.glob("*.deb"):
        _run(["dpkg", "-x", archive.name, "unpacked"], place)
        archive.unlink()
    # Whole or not there at all, whenever this is interrupted; the lists are large and of no use any more.
    (place / "unpacked" / "usr").rename(place / "usr")
    for folder in ("state", "cache", "unpacked"):
        shutil.rmtree(place / folder)


def _mirror() -> str:
    """Return the address of the Debian mirror that this machine is configured with."""
    targets = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Identifier: Packages"]
    for line in _run(targets, ROOT).splitlines():
        label, _space, address = line.partition(" ")
        if label == "Debian":
            return address
    raise NoPromtool("apt on this machine knows no mirror of Debian")


def _run(command: list[str], place: pathlib.Path) -> str:
    try:
        done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NoPromtool(f"{command[0]}: {problem}") from problem
    if done.returncode != 0:
        raise NoPromtool(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    for wanted in VERSIONS:
        try:
            print(wanted, ensure(wanted))
        except NoPromtool as none:
            sys.exit(f"{wanted}: {none}")
