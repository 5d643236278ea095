"""Listens at the port of the first argument; with a second one, does not end when it is asked to."""

from __future__ import annotations

import signal
import socket
import sys

if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
