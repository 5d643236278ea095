"""What a client, or ansible, needs to find the sandbox: environment variables, also written to ``.sandbox/env``."""

from __future__ import annotations

import os
import shlex

from ..checkout import collections_path
from .client import base_url
from .layout import INVENTORY, MODEL_NAME, MONITOR, PKI, ROOT, STATE
from .pki import client_key, monitoring_password


def for_ansible() -> dict[str, str]:
    """Return the environment in which this checkout's ansible runs: its own venv, home and collection path."""
    return dict(
        os.environ,
        PATH=f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        ANSIBLE_COLLECTIONS_PATH=str(collections_path()),
        ANSIBLE_CONFIG=str(INVENTORY / "ansible.cfg"),
        ANSIBLE_HOME=str(STATE / "ansible"),
        ANSIBLE_INVENTORY=str(INVENTORY),
    )


def monitoring_url(port: int) -> str:
    """Return the address of a service on the monitoring host, with its login."""
    return f"https://llmops:{monitoring_password()}@{MONITOR.address}:{port}"


def write() -> None:
    """Write ``.sandbox/env``: ``export`` lines, readable by the owner alone because the API key is among them."""
    ansible = for_ansible()
    values = {
        "LLMOPS_URL": base_url(),
        "LLMOPS_API_KEY": client_key("demo"),
        "LLMOPS_CA": str(PKI / "ca.crt"),
        "LLMOPS_MODEL": MODEL_NAME,
        "PROMETHEUS_URL": monitoring_url(9090),
        "ALERTMANAGER_URL": monitoring_url(9093),
        "GRAFANA_URL": "",
        **{name: ansible[name] for name in sorted(ansible) if name.startswith("ANSIBLE_") and name not in os.environ},
        "PATH": f"{ROOT / '.venv' / 'bin'}:$PATH",
    }
    path = STATE / "env"
    path.touch(mode=0o600)
    lines = [f"export {k}={v if k == 'PATH' else shlex.quote(v)}" for k, v in values.items()]
    path.write_text("\n".join(lines) + "\n")
