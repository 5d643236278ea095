"""Base images: a Debian with systemd, as mmdebstrap makes it from the distribution's packages."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess

from .layout import LABEL, ROOT, STATE
from .steps import SandboxError, run, succeeds

_PACKAGES = (
    "systemd systemd-sysv dbus udev python3 ca-certificates iproute2 procps curl sudo openssh-server iputils-ping"
    " nftables libnuma1"
).split()
_OPTIONS = ["--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io"] + [
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "doc")
]
RELEASES = ("bookworm", "trixie")


def image(release: str) -> str:
    """Return the image's name; the tag changes with the recipe, so an old image is never taken for a new one."""
    recipe = hashlib.sha256(" ".join(_PACKAGES + _OPTIONS).encode()).hexdigest()[:8]
    return f"llmops-sandbox:{release}-{recipe}"


def ensure(release: str) -> None:
    """Build the image from packages unless the engine has it."""
    name = image(release)
    if succeeds(["docker", "image", "inspect", name]):
        return
    build = ["mmdebstrap", *_OPTIONS, f"--include={','.join(_PACKAGES)}", release, "-"]
    if os.geteuid() != 0:
        build.insert(0, "sudo")
    log = STATE / f"image-{release}.log"
    # Straight into the engine, named only when complete: nothing lies about when this is interrupted.
    changes = ['CMD ["/lib/systemd/systemd"]', "ENV container=docker", f"LABEL {LABEL}={ROOT}"]
    options = [word for change in changes for word in ("-c", change)]
    with open(log, "wb") as errors, subprocess.Popen(build, stdout=subprocess.PIPE, stderr=errors) as tar:
        unnamed = run(["docker", "import", *options, "-"], pipe=tar.stdout).strip()
    if tar.returncode != 0:
        raise SandboxError(f"mmdebstrap {release} ended with {tar.returncode}:\n{_tail(log)}")
    run(["docker", "tag", unnamed, name])


def _tail(path: pathlib.Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])
