# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's log: one JSON object per line to the journal, and the last changes of each replica for ``explain``."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections import Counter, defaultdict, deque
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Change

REMEMBERED = 20  # changes of a replica


class Log:
    """Writes lines and remembers changes. Never raises: a full disk must not end the agent."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._history: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._said: dict[str, str] = {}

    def event(self, event: str, **fields: Any) -> None:
        """Write one line: what happened, and the fields that explain it."""
        self.counts[event] += 1
        line = json.dumps({"time": _now(), "event": event, **fields}, default=str)
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stdout, flush=True)

    def change(self, change: Change) -> None:
        """Write a change and remember it for its replica."""
        fields = {"replica": change.replica, "before": change.before, "after": change.after, "reason": change.reason}
        self._history[change.replica].append({"time": _now(), "event": change.event, **fields})
        self.event(change.event, **fields, numbers=change.numbers)

    def state(self, topic: str, problem: str) -> None:
        """Write a problem once when it appears or changes, and once when it is gone (empty text)."""
        if self._said.get(topic, "") != problem:
            self._said[topic] = problem
            self.event("problem" if problem else "solved", topic=topic, reason=problem)

    def history(self, replica: str) -> list[dict[str, Any]]:
        """Return the last changes of a replica, the oldest first."""
        return list(self._history.get(replica, ()))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
