"""What the sandbox consists of: names, addresses, folders. Nothing here touches the machine."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STATE = ROOT / ".sandbox"
WHEELS = STATE / "wheels"
MODELS = STATE / "models"
PKI = STATE / "pki"
SECRETS = STATE / "secrets.json"
INVENTORY = ROOT / "inventories" / "sandbox"

# Everything that the sandbox makes in the container engine carries this label; its value is the checkout.
LABEL = "llmops.sandbox"
NETWORK = "llmops-sandbox"
SUBNET = "172.30.77.0/24"
GATEWAY = "172.30.77.1"
VIRTUAL_ADDRESS = "172.30.77.100"  # held by one of the balancers


@dataclass(frozen=True)
class Host:
    """One systemd host in a container; the inventory ``inventories/sandbox`` names the same ones."""

    name: str
    address: str
    release: str
    mounts: tuple[str, ...] = ()
    image: str = ""  # another one than the release's base image
    shares: int = 1024  # of the CPU; balancers are machines of their own, whatever their servers compute

    @property
    def container(self) -> str:
        """The container's name: prefixed, because names are global in an engine."""
        return f"llmops-{self.name}"


_SERVER_MOUNTS = (f"{WHEELS}:/srv/wheels:ro",)

HOSTS = (
    Host("lb1", "172.30.77.11", "bookworm", shares=32768),
    Host("lb2", "172.30.77.12", "trixie", shares=32768),
    # The CPU build of torch is for Python 3.11, so real vLLM runs on Debian 12.
    Host("gpu1", "172.30.77.21", "bookworm", _SERVER_MOUNTS),
    Host("gpu2", "172.30.77.22", "bookworm", _SERVER_MOUNTS),
    Host("gpu3", "172.30.77.23", "bookworm", _SERVER_MOUNTS),
    Host("mon1", "172.30.77.31", "bookworm"),
    # Load clients run in a container: a busy process beside the containers starves all of them.
    Host(
        "client1",
        "172.30.77.41",
        "bookworm",
        (f"{ROOT}/tests/load:/opt/tests/load:ro", f"{STATE}:/opt/sandbox:ro"),
        shares=8192,
    ),
)
BALANCERS = tuple(host for host in HOSTS if host.name.startswith("lb"))
MONITOR = next(host for host in HOSTS if host.name == "mon1")
MODEL_NAME = "tiny"
