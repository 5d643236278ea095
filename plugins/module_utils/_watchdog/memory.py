# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog remembers between its turns, until the host boots again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent import files

HOUR = 3600.0
KEPT_SECONDS = 24 * HOUR


class Memory:
    """Incidents that were handled, and what was said last. Times are seconds of the host's monotonic clock."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """A file that is missing or broken is an empty memory."""
        self._path, self._clock = path, clock
        self._handled: dict[str, dict[str, Any]] = {}
        self._said: dict[str, str] = {}
        self._saved = True
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for incident, entry in found["handled"].items():
                if clock() - float(entry["at"]) < KEPT_SECONDS:
                    self._handled[incident] = {"replica": str(entry["replica"]), "at": float(entry["at"])}
            self._said = {str(topic): str(text) for topic, text in found["said"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._saved = False

    def handled(self) -> set[str]:
        """Incidents that were acted upon."""
        return set(self._handled)

    def last_hour(self, replica: str) -> int:
        """How often the replica was restarted in the last hour."""
        now = self._clock()
        return sum(entry["replica"] == replica and now - entry["at"] < HOUR for entry in self._handled.values())

    def handle(self, incident: str, replica: str) -> None:
        """Remember, on disk, that the incident is acted upon; OSError when that cannot be."""
        self._handled[incident] = {"replica": replica, "at": self._clock()}
        self._saved = False
        self.save()

    def is_new(self, topic: str, text: str) -> bool:
        """Tell whether a topic has another text than last time; an empty one ends it."""
        before = self._said.get(topic, "")
        if text:
            self._said[topic] = text
        else:
            self._said.pop(topic, None)
        self._saved = self._saved and before == text
        return before != text

    def topics(self) -> list[str]:
        """Topics of which something was said that has not ended."""
        return list(self._said)

    def save(self) -> None:
        """Write what changed; OSError when that cannot be."""
        if not self._saved:
            document = {"handled": self._handled, "said": self._said}
            files.write(self._path, json.dumps(document, indent=1, sort_keys=True) + "\n", 0o600)
            self._saved = True
