"""Many server hosts on this machine: containers with systemd and the FAKE vLLM, made by the role itself.

The first host is brought up by ``site.yml`` from bare; the others are copies of its disk, so that packages and the
environment are installed once and not fifty times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator

import yaml

from tests.fakes.vllm import build as fake
from tools import tiny_model
from tools.sandbox import hosts as sandbox
from tools.sandbox.layout import LABEL, ROOT, STATE, WHEELS, Host
from tools.sandbox.steps import run, succeeds

PLACE = STATE / "scale"
INVENTORY = PLACE / "inventory" / "hosts.yml"
IMAGE = "llmops-sandbox:scale"
_FIRST = 101  # last number of the first address; the sandbox's own hosts and its virtual address lie below


def host(number: int, image: str = "") -> Host:
    """Return host number 0, 1, 2 ... of the benchmark."""
    mounts = (f"{PLACE / 'wheels'}:/srv/wheels:ro", f"{PLACE / 'model'}:/srv/model:ro")
    return Host(f"many{number}", f"172.30.77.{_FIRST + number}", "bookworm", mounts, image)


@contextlib.contextmanager
def room_for_many() -> Iterator[None]:
    """Let the kernel give more than its 128 inotify instances to a user: each systemd takes six, and root is one."""
    limit = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
    before = limit.read_text()
    limit.write_text("1024")
    try:
        yield
    finally:
        limit.write_text(before)


def prepare() -> None:
    """Write wheels, lock, model and keys for the hosts."""
    shutil.rmtree(PLACE, ignore_errors=True)
    (PLACE / "wheels").mkdir(parents=True)
    wheel = fake.build(PLACE / "wheels")
    for uv in WHEELS.glob("uv-*.whl"):
        shutil.copy2(uv, PLACE / "wheels")
    digest = hashlib.sha256(pathlib.Path(wheel).read_bytes()).hexdigest()
    (PLACE / "requirements.txt").write_text(f"vllm=={fake.VERSION} --hash=sha256:{digest}\n")
    tiny_model.write(PLACE / "model", "a")


def write_inventory(count: int) -> None:
    """Write an inventory of so many servers; all that a host does not need is left out."""
    names = {f"many{number}": {"llmops_address": host(number).address} for number in range(count)}
    variables = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": "llmops-{{ inventory_hostname }}",
        "ansible_user": "root",
        "ansible_become": False,
        "llmops_model_name": "tiny",
        "llmops_model_source": "file:///srv/model",
        "llmops_model_revision": "a",
        "llmops_backend_keys": [hashlib.sha256(b"benchmark").hexdigest()],
        "vllm_version": fake.VERSION,
        "vllm_gpus": 0,
        "vllm_wheel_dir": "/srv/wheels",
        "vllm_requirements": str(PLACE / "requirements.txt"),
        "vllm_system_packages": [],
    }
    INVENTORY.parent.mkdir(exist_ok=True)
    INVENTORY.write_text(yaml.safe_dump({"all": {"vars": variables, "children": {"llm_servers": {"hosts": names}}}}))


def start(count: int, image: str = "") -> None:
    """Bring up hosts 0 to ``count`` - 1; those that run stay."""
    sandbox.ensure(tuple(host(number, image) for number in range(count)))


def copy_first() -> None:
    """Make an image of host 0 without its releases, and remove the host."""
    first = host(0).container
    script = (
        "systemctl disable --now vllm@r0 && rm -rf /etc/vllm /etc/systemd/system/vllm@r0.service.d "
        "&& rm -rf /var/cache/llmops"
    )
    run(["docker", "exec", first, "sh", "-c", script])
    run(["docker", "commit", "-c", f"LABEL {LABEL}={ROOT}", first, IMAGE])
    run(["docker", "rm", "-f", "-v", first])


def remove() -> None:
    """Remove the hosts, their image and their files."""
    listed = run(["docker", "ps", "-a", "--filter", "name=llmops-many", "--format", "{{json .}}"])
    for line in listed.splitlines():
        run(["docker", "rm", "-f", "-v", json.loads(line)["ID"]])
    if succeeds(["docker", "image", "inspect", IMAGE]):
        run(["docker", "rmi", "-f", IMAGE])
    shutil.rmtree(PLACE, ignore_errors=True)
