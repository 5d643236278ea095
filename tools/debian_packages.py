"""Programs out of Debian's packages, unpacked below ``.cache/debian``: nothing is installed on this machine.

Packages come by apt's own tools, which check signatures as always. A suite that this machine does not use is asked with
a configuration of its own: the machine's lists stay as they are.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
import subprocess

from .one_at_a_time import one_at_a_time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class NoPackage(Exception):
    """This package cannot be had here; the message says why."""


def unpacked(package: str, suite: str = "") -> pathlib.Path:
    """Return the directory of the package's files, fetched unless it is there; without a suite, the machine's own."""
    found = _tried(package, suite)
    if isinstance(found, NoPackage):
        raise found
    return found


def not_installed(*packages: str) -> list[str]:
    """Return the names of what apt would install here for these packages, in its order; raise NoPackage if it cannot.

    Their dependencies are among them, but for those that this machine has.
    """
    told = _run(["apt-get", "--simulate", "--no-install-recommends", "install", *packages], ROOT)
    return [line.split()[1] for line in told.splitlines() if line.startswith("Inst ")]


@functools.cache
def _tried(package: str, suite: str) -> pathlib.Path | NoPackage:
    """Once a run: what cannot be had costs apt's patience each time."""
    try:
        return _brought(package, suite)
    except NoPackage as reason:
        return reason


def _brought(package: str, suite: str) -> pathlib.Path:
    place = PLACE / (suite or "own") / package
    with one_at_a_time(place):
        if not place.is_dir():
            trial = place.with_name(f"{package}.new")
            shutil.rmtree(trial, ignore_errors=True)  # of a run that was interrupted
            (trial / "files").mkdir(parents=True)
            _fetch(trial, package, suite)
            (trial / "files").rename(place)
            shutil.rmtree(trial)
    return place


def _fetch(trial: pathlib.Path, package: str, suite: str) -> None:
    options: list[str] = []
    if suite:
        options = _own_configuration(trial, suite)
        _run(["apt-get", *options, "-qq", "update"], trial)
    _run(["apt-get", *options, "-qq", "download", package], trial)
    archive = next(trial.glob("*.deb"), None)
    if archive is None:
        raise NoPackage(f"apt-get brought nothing for {package}")
    _run(["dpkg", "-x", archive.name, "files"], trial)


def _own_configuration(trial: pathlib.Path, suite: str) -> list[str]:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (trial / folder).mkdir(parents=True)
    (trial / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    options = {
        "Dir::State": trial / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": trial / "cache",
        "Dir::Etc::sourcelist": trial / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Sandbox::User": "root",  # the checkout may be one that the user _apt cannot enter
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _mirror() -> str:
    """Return the address of the Debian mirror that this machine is configured with."""
    targets = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Identifier: Packages"]
    for line in _run(targets, ROOT).splitlines():
        label, _space, address = line.partition(" ")
        if label == "Debian":
            return address
    raise NoPackage("apt on this machine knows no mirror of Debian")


def _run(command: list[str], place: pathlib.Path) -> str:
    try:
        done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NoPackage(f"{command[0]}: {problem}") from problem
    if done.returncode != 0:
        raise NoPackage(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout
