"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to clients: one of these would have the port by the time the server starts.
_RANGE = range(20000, 32000)


def free_port() -> int:
    """Return a port that nobody uses at any address of this machine, and that no client will be given."""
    while True:
        with socket.socket() as trial:
            port = random.choice(_RANGE)
            try:
                trial.bind(("", port))
            except OSError:
                continue
            return port
