# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc shows of the NGINX of this host: its connections to replicas, and its workers."""

from __future__ import annotations

import contextlib
import ipaddress
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Iterator

from ansible_collections.llmops.vllm.plugins.module_utils._balancer.names import server_address

_OPEN = ("01", "02")  # ESTABLISHED, SYN_SENT


def connections(uid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> Counter[str]:
    """Return the open TCP connections of a user by remote ``address:port``; OSError when /proc cannot be read."""
    found: Counter[str] = Counter()
    for table in ("tcp", "tcp6"):
        path = proc / "net" / table
        if table == "tcp6" and not path.exists():
            continue  # a kernel without IPv6
        for line in path.read_text().splitlines()[1:]:
            # sl local_address rem_address st tx:rx tr:tm retrnsmt uid ...
            fields = line.split()
            if fields[3] in _OPEN and int(fields[7]) == uid:
                found[_remote(fields[2])] += 1
    return found


def _remote(text: str) -> str:
    """Return ``address:port`` of the kernel's hexadecimal notation: words in the byte order of this machine."""
    address, _colon, port = text.partition(":")
    words = [int(word, 16).to_bytes(4, sys.byteorder) for word in re.findall("........", address)]
    found = ipaddress.ip_address(b"".join(words))
    found = getattr(found, "ipv4_mapped", None) or found
    return server_address(str(found), int(port, 16))


def _titles(proc: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    for path in proc.iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                yield int(path.name), (path / "cmdline").read_bytes().rstrip(b"\0 ")


def serving(proc: pathlib.Path = pathlib.Path("/proc")) -> set[int]:
    """Return the numbers of the workers that take requests."""
    return {number for number, title in _titles(proc) if title == b"nginx: worker process"}


def old_generations(proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """Return how many generations of old workers finish their streams: reloads whose price is still being paid."""
    old = current = 0
    for _number, title in _titles(proc):
        old += title.startswith(b"nginx: worker process is shutting down")
        current += title == b"nginx: worker process"
    return -(-old // max(current, 1))
