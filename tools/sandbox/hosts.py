"""The hosts: containers with systemd as their first process, on a bridge of their own with fixed addresses."""

from __future__ import annotations

import json
import pathlib
import time

from .images import image
from .layout import GATEWAY, HOSTS, LABEL, NETWORK, ROOT, SUBNET, Host
from .steps import SandboxError, run, succeeds

_BOOT_SECONDS = 120
# The smallest grant with which systemd boots and its limits really apply; NET_* for keepalived and nftables.
_OPTIONS = (
    "--cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW --stop-signal SIGRTMIN+3 --shm-size 1g"
    " --tmpfs /run --tmpfs /tmp:exec --tmpfs /run/lock -v /sys/fs/cgroup:/sys/fs/cgroup:rw --cgroupns=host"
).split()


def _labelled(kind: str) -> list[dict[str, str]]:
    """Return containers, networks or images with our label, of this checkout and of others."""
    words = {"container": ["ps", "-a"], "network": ["network", "ls"], "image": ["images"]}[kind]
    listing = run(["docker", *words, "--no-trunc", "--filter", f"label={LABEL}", "--format", "{{json .}}"])
    return [json.loads(line) for line in listing.splitlines()]


def _owner(kind: str, ident: str) -> str:
    """Return the checkout that made it."""
    place = ".Labels" if kind == "network" else ".Config.Labels"
    return run(["docker", kind, "inspect", "-f", f'{{{{index {place} "{LABEL}"}}}}', ident]).strip()


def _ours(kind: str) -> list[dict[str, str]]:
    """Return those of this checkout, and those whose checkout is gone: nobody else would remove them."""
    found = [(item, _owner(kind, item["ID"])) for item in _labelled(kind)]
    return [item for item, owner in found if owner == str(ROOT) or not pathlib.Path(owner).is_dir()]


def refuse_a_second_sandbox(take_over: bool) -> None:
    """Stop when another checkout's sandbox is up: addresses and names exist once per machine."""
    owners = {_owner("container", item["ID"]) for item in _labelled("container") if item["State"] == "running"}
    living = sorted(owner for owner in owners - {str(ROOT)} if pathlib.Path(owner).is_dir())
    if living and not take_over:
        raise SandboxError(
            f"a sandbox of {living[0]} is up on this machine: run `make demo-down` there, or set"
            " LLMOPS_SANDBOX_TAKE_OVER=1 to replace it by this one"
        )
    for item in _labelled("container"):
        if _owner("container", item["ID"]) != str(ROOT):
            run(["docker", "rm", "-f", "-v", item["ID"]])


def ensure(hosts: tuple[Host, ...] = HOSTS) -> None:
    """Bring up the network and every host that is not running; wait until systemd in each has booted."""
    if not succeeds(["docker", "network", "inspect", NETWORK]):
        run(["docker", "network", "create", "--subnet", SUBNET, "--gateway", GATEWAY]
            + ["--label", f"{LABEL}={ROOT}", NETWORK])  # fmt: skip
    running = {item["Names"] for item in _ours("container") if item["State"] == "running"}
    for host in hosts:
        if host.container in running and _is_current(host):
            continue
        # A container that was stopped has lost its /run: a new one is cheaper than a repair.
        if succeeds(["docker", "inspect", host.container]):
            run(["docker", "rm", "-f", "-v", host.container])
        mounts = [word for mount in host.mounts for word in ("-v", mount)]
        run(["docker", "run", "-d", "--name", host.container, "--hostname", host.name, "--label", f"{LABEL}={ROOT}"]
            + ["--network", NETWORK, "--ip", host.address, "--cpu-shares", str(host.shares)]
            + [*_OPTIONS, *mounts, _image(host)])  # fmt: skip
    for host in hosts:
        _await_boot(host)
    _prefer_hosts()


def _prefer_hosts() -> None:
    """Let what runs beside the hosts wait for them: one busy process would slow all of them, as one group, to a crawl.

    Without this, two balancers that hear of each other every 0.2 s change places whenever a test runs beside them.
    """
    for path, share in (("cpu/docker/cpu.shares", "65536"), ("docker/cpu.weight", "10000")):
        file = pathlib.Path("/sys/fs/cgroup") / path
        if file.exists():
            file.write_text(share)


def _is_current(host: Host) -> bool:
    found = run(["docker", "inspect", "-f", "{{.Config.Image}}", host.container]).strip()
    return found == _image(host)


def _image(host: Host) -> str:
    return host.image or image(host.release)


def _await_boot(host: Host) -> None:
    limit = time.monotonic() + _BOOT_SECONDS
    # `degraded` is a host that has booted with a failed unit; what runs on it is for the tests to say.
    question = "systemctl is-system-running 2>/dev/null | grep -qE '^(running|degraded)$'"
    while not succeeds(["docker", "exec", host.container, "sh", "-c", question]):
        if time.monotonic() > limit:
            state = run(["docker", "exec", host.container, "sh", "-c", "systemctl --failed --no-pager; exit 0"])
            raise SandboxError(f"{host.container} did not boot within {_BOOT_SECONDS} s:\n{state}")
        time.sleep(0.3)


def remove() -> None:
    """Remove the hosts of this checkout, found by label, not by memory; the network when nobody is on it any more."""
    for container in _ours("container"):
        run(["docker", "rm", "-f", "-v", container["ID"]])
    if not _labelled("container"):
        for network in _labelled("network"):
            run(["docker", "network", "rm", network["ID"]])


def remove_images() -> None:
    """Remove the base images that this checkout has built, complete or not."""
    for image_id in sorted({item["ID"] for item in _ours("image")}):
        run(["docker", "rmi", "-f", image_id])
