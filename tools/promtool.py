"""Brings promtool, and Prometheus itself: Debian 12's 2.42, and the 3.x of Debian's unstable suite.

``python -m tools.promtool`` prints the paths of promtool.
"""

from __future__ import annotations

import pathlib
import sys

from tools.debian_packages import NoPackage, unpacked

# Suites by the version that they have.
VERSIONS = {"2.42": "bookworm", "3": "sid"}


def ensure(version: str, name: str = "promtool") -> pathlib.Path:
    """Return the program of this name, fetched unless it is there; raise NoPackage where it cannot be had."""
    suite = VERSIONS[version]
    package = "prometheus" if suite == "bookworm" else name  # since 3.x promtool is a package of its own
    return unpacked(package, suite) / "usr" / "bin" / name


if __name__ == "__main__":
    for wanted in VERSIONS:
        try:
            print(wanted, ensure(wanted))
        except NoPackage as none:
            sys.exit(f"{wanted}: {none}")
