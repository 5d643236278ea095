# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver a host has: files, packages, the module that runs; and what decides whether another can be built."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands

_SECONDS = 30.0
_LIBRARIES = ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nvidia/*", "usr/lib64", "usr/lib64/nvidia", "usr/lib/nvidia*")
_MODULE = re.compile(r"nvidia(-current|-tesla[\w-]*)?(-open)?\.ko(\.(xz|gz|zst))?")
# Packages that bring a kernel module, in the names of Debian, Ubuntu and NVIDIA.
_HOLDS_MODULE = re.compile(
    r"nvidia-((open-)?kernel(-open)?-dkms|tesla-(\d+-)?kernel-dkms|(dkms|headless)(-\d+)?(-server)?(-open)?)"
)
_OURS = re.compile(r"(lib)?nvidia-|libcuda1$|cuda-drivers")
_LIBRARY = re.compile(r"libnvidia-(ml1|compute)|nvidia-driver-cuda|libnvidia-tesla.*-ml1")
# Packages that follow the newest kernel of a flavour: linux-image-amd64, linux-image-cloud-amd64, linux-image-aws,
# linux-image-generic-hwe-22.04. Those with the headers are named alike.
_FOLLOWS = re.compile(r"linux-image-(?!\d|unsigned-|extra-|.*-dbg$)(.+)")
_EFI = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_UNINSTALL = "usr/bin/nvidia-uninstall"


@dataclass(frozen=True)
class Place:
    """Where to look, and how to run programs; tests look elsewhere."""

    root: Path = Path("/")
    run: commands.Run = commands.run

    def text(self, path: str) -> str:
        """The text of a file; empty when it is not there."""
        with contextlib.suppress(OSError):
            return (self.root / path).read_text(errors="replace").strip()
        return ""

    def output(self, *command: str) -> str:
        """What a program prints; empty when it cannot."""
        done = self.run(command, _SECONDS)
        return "" if done.problem else done.text.strip()


def kernel(place: Place, release: str) -> dict[str, Any]:
    """A kernel and whether modules can be built for it, and for those after it; an empty release is the one that runs.

    ``next`` is the newest kernel that is installed, which starts with the next restart; empty when it runs already.
    ``meta`` are packages that are not there and bring the headers of kernels to come.
    """
    meant = release or place.text("proc/sys/kernel/osrelease")
    newest = max((file.name.partition("-")[2] for file in place.root.glob("boot/vmlinuz-*")), key=_order, default="")
    later = newest if not release and _order(newest) > _order(meant) else ""
    names = {name for name, (state, _version) in _listed(place) if state[1:2] == "i"}
    follow = sorted(f"linux-headers-{match[1]}" for match in map(_FOLLOWS.fullmatch, names) if match)
    return {
        "release": meant,
        "headers": _headers(place, meant),
        "next": later,
        "next_headers": _headers(place, later) if later else "",
        "meta": [name for name in follow if name not in names and _offered(place, name) is not False],
    }


def _headers(place: Place, release: str) -> str:
    """Whether the headers of a kernel are installed, available, missing or unknown."""
    if (place.root / "lib/modules" / release / "build").exists():
        return "installed"
    return {True: "available", False: "missing", None: "unknown"}[_offered(place, f"linux-headers-{release}")]


def _offered(place: Place, package: str) -> bool | None:
    """Whether a repository has a package; None when nobody has asked the repositories yet."""
    if not any((place.root / "var/lib/apt/lists").glob("*_Packages*")):
        return None
    return re.search(r"Candidate: (?!\(none\))\S", place.output("apt-cache", "policy", package)) is not None


def _order(release: str) -> list[tuple[int, int | str]]:
    """Orders releases as the boot loader does: 6.1.0-9 before 6.1.0-49."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.findall(r"\d+|\D+", release)]


def secure_boot(place: Place, keys: Iterable[str]) -> dict[str, Any]:
    """Whether the firmware checks modules (None: it is no UEFI), and the first of the keys that it knows."""
    with contextlib.suppress(OSError):
        on = (place.root / _EFI).read_bytes()[-1:] == b"\x01"
        # mokutil ends with 1 for a key that is enrolled
        known = (key for key in keys if "is already enrolled" in place.run(["mokutil", "--test-key", key], 30).text)
        return {"on": on, "key": next(known, "") if on else ""}
    return {"on": None, "key": ""}


def driver(place: Place, release: str) -> dict[str, Any]:
    """The driver: its versions on disk and in the kernel, its kind, how it came, and what of it is half there."""
    packages = {name: rest for name, rest in _listed(place) if _OURS.match(name)}
    installed = {name: version for name, (state, version) in packages.items() if state[1] == "i"}
    libraries, module, kind = _libraries(place), *_module(place, release)
    loaded = place.text("sys/module/nvidia/version")
    if loaded:
        kind = "open" if "Open Kernel Module" in place.text("proc/driver/nvidia/version") else kind or "proprietary"
    runfile = (place.root / _UNINSTALL).exists()
    return {
        "library": libraries[-1] if libraries else "",
        "module": module,
        "loaded": loaded,
        "kind": kind,
        "way": "runfile" if runfile else "package" if any(map(_LIBRARY.match, installed)) else "",
        "packages": sorted(filter(_HOLDS_MODULE.fullmatch, installed)),
        "installed": {
            name: {"version": _upstream(version), "held": packages[name][0][0] == "h"}
            for name, version in sorted(installed.items())
        },
        "fabric_manager": next((_upstream(v) for n, v in installed.items() if "nvidia-fabricmanager" in n), ""),
        "broken": [*_broken(packages, libraries, module or loaded, runfile)],
    }


def _broken(packages: dict[str, tuple[str, str]], libraries: list[str], module: str, runfile: bool) -> Iterator[str]:
    """What no driver in order looks like, each with the mend."""
    for name, (state, _version) in packages.items():
        if state[1] not in "inc":
            yield f"package {name} is in state {state} of dpkg: dpkg --configure -a, or apt-get purge {name}"
    mine = [name for name, (state, _version) in packages.items() if state[1] == "i" and _LIBRARY.match(name)]
    if runfile and mine:
        yield (
            f"both NVIDIA's .run file and the packages {', '.join(mine)} are installed: run nvidia-uninstall, or"
            f" apt-get purge {' '.join(mine)}"
        )
    elif len(libraries) > 1:
        yield f"libraries of {' and '.join(libraries)} lie side by side: apt-get purge those of no module"
    elif libraries and not mine and not runfile:
        yield f"libraries of {libraries[0]} belong to no package: remove libnvidia-ml.so.{libraries[0]} and its like"
    if module and not libraries and not mine and not any(map(_HOLDS_MODULE.fullmatch, packages)):
        yield f"module {module} is there without its libraries: dkms status shows it, dkms remove takes it away"


def _listed(place: Place) -> Iterator[tuple[str, tuple[str, str]]]:
    """Packages with dpkg's state (ii: installed; hi: installed and held) and version."""
    listed = place.output("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Version}\n")
    for line in listed.splitlines():
        state, _tab, rest = line.partition("\t")
        name, _tab, version = rest.partition("\t")
        yield name, (state.strip(), version)


def _upstream(version: str) -> str:
    """The maker's version in a package's: no epoch, no revision."""
    return version.rpartition(":")[2].partition("-")[0]


def _libraries(place: Place) -> list[str]:
    """Versions of NVML's library on disk."""
    files = (file for where in _LIBRARIES for file in place.root.glob(f"{where}/libnvidia-ml.so.*"))
    found = (re.search(r"\.so\.(\d{3}\.[\d.]+)$", file.name) for file in files)
    return sorted({match[1] for match in found if match})


def _module(place: Place, release: str) -> tuple[str, str]:
    """Version and kind of the kernel module on disk."""
    home = place.root / "lib/modules" / release
    found = (file for part in ("updates", "extra", "kernel") for file in sorted((home / part).rglob("nvidia*.ko*")))
    for file in found:
        if _MODULE.fullmatch(file.name):
            licence = place.output("modinfo", "-F", "license", str(file))
            kind = "open" if "GPL" in licence else "proprietary" if licence else ""
            return place.output("modinfo", "-F", "version", str(file)), kind
    return "", ""
