# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this balancer may hold the service's address: what keepalived and NGINX's ``/readyz`` read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# How long the engine may be without an answer: it restarts by itself within this time, and then the address stays.
ENGINE_GRACE_SECONDS = 0.6


class Hold:
    """Keeps two files true: ``hold`` (0: may hold the address, 1: must not) and ``away``, which exists when it is 1.

    They outlive the agent, so its death never moves the address.
    """

    def __init__(self, run: Path) -> None:
        self._hold, self._away = run / "hold", run / "away"
        self._dead_since: float | None = None
        self.may_hold = self._read()

    def _read(self) -> bool:
        with contextlib.suppress(OSError):
            return self._hold.read_text().strip() == "0"
        return False

    def engine(self, alive: bool, now: float) -> bool:
        """Note whether the engine answers; returns whether it counts as alive, its grace included."""
        if alive:
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = now
        return self._dead_since is None or now - self._dead_since < ENGINE_GRACE_SECONDS

    def set(self, may_hold: bool) -> None:
        """Write the files where they say something else."""
        if may_hold == self.may_hold and self._read() == may_hold and self._away.exists() != may_hold:
            return
        self.may_hold = may_hold
        with contextlib.suppress(OSError):  # /run is memory; what cannot be written is tried again at the next turn
            # in place: keepalived watches this very file
            descriptor = os.open(self._hold, os.O_WRONLY | os.O_CREAT, 0o644)
            with os.fdopen(descriptor, "w") as file:
                file.write("0\n" if may_hold else "1\n")
            self._hold.chmod(0o644)
            if may_hold:
                self._away.unlink(missing_ok=True)
            else:
                self._away.touch(mode=0o644)
                self._away.chmod(0o644)
