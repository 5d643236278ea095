# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NGINX in its native form tells of each request: a syslog datagram, ``LB|addresses|statuses|completion``."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
import socket
from collections.abc import Mapping
from dataclasses import replace

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed

_LINE = re.compile(rb"LB\|([^|]*)\|([^|]*)\|([^|]*)$")
_LARGEST = 8192  # bytes of a datagram; NGINX cuts its own at 4096


def tries(datagram: bytes) -> list[tuple[str, bool]]:
    """Return the tries of a request as (address:port, good), those that say nothing of the replica left out."""
    match = _LINE.search(datagram.strip(b"\n\0"))
    if not match:
        return []
    addresses, statuses = (re.split(r"\s*[,:]\s+", part.decode("latin-1")) for part in match.groups()[:2])
    if len(addresses) != len(statuses):
        return []
    found = []
    for number, (address, text) in enumerate(zip(addresses, statuses), 1):
        status = int(text) if re.fullmatch(r"[0-9]{3}", text) else 0
        left = number == len(addresses) and match[3] != b"OK"  # the client
        if status in (0, 499, 503) or left:
            continue
        found.append((address, status < 500))
    return found


class Observations:
    """Counts by the replica's ``address:port``; a socket feeds them. NGINX never waits for it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._counts: dict[str, Observed] = {}

    def open(self) -> None:
        """Listen, inside a running loop; OSError when the path cannot be had."""
        if self._socket:
            return
        pathlib.Path(self._path).unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.bind(self._path)
        # NGINX's workers are another user, and what others could send at worst wakes a probe.
        pathlib.Path(self._path).chmod(0o666)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def _receive(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            for _turn in range(256):  # then others of the loop have their turn
                self.take(self._socket.recv(_LARGEST))

    def take(self, datagram: bytes) -> None:
        """Count what one datagram tells."""
        for address, good in tries(datagram):
            old = self._counts.get(address, Observed())
            if good:
                self._counts[address] = replace(old, good=old.good + 1, failed_in_row=0)
            else:
                self._counts[address] = replace(old, failed=old.failed + 1, failed_in_row=old.failed_in_row + 1)

    def of(self, addresses: Mapping[str, str]) -> dict[str, Observed]:
        """Return the counts by replica, whose ``address:port`` by id is given; others are forgotten."""
        self._counts = {address: self._counts[address] for address in addresses.values() if address in self._counts}
        return {id: self._counts.get(address, Observed()) for id, address in addresses.items()}

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            pathlib.Path(self._path).unlink(missing_ok=True)
