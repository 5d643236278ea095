# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engine NGINX with lb.lua: the view goes to the admin socket and is in force with the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.exchange import exchange_json, over_socket
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Observed, View

SOCKET = "/run/nginx-llm/admin.sock"


class NginxLua:
    """The engine behind an admin socket; each question has ``seconds``."""

    def __init__(self, socket: str = SOCKET, seconds: float = 2) -> None:
        self._socket, self._seconds = socket, seconds

    async def apply(self, view: View, urgent: bool) -> None:
        """Send the view; EngineError unless NGINX says that it is in force. Nothing is put off: it has no price."""
        try:
            status, found = await exchange_json(over_socket(self._socket), "PUT", "/lb", view.text(), self._seconds)
        except OSError as error:
            raise EngineError(f"PUT {self._socket} /lb: {error}; is nginx.service running?") from error
        if status != 200:
            raise EngineError(f"PUT {self._socket} /lb: status {status}: {str(found.get('error'))[:200]}")
        if found.get("view") != view.id:
            text = f"has view {str(found.get('view'))[:20]!r} in force, sent was {view.id}; does another program send?"
            raise EngineError(f"PUT {self._socket} /lb: NGINX {text}")

    async def look(self) -> Sight:
        """Ask for the view in force, for what is in flight and for what was seen."""
        try:
            status, found = await exchange_json(over_socket(self._socket), "GET", "/lb", seconds=self._seconds)
            if status != 200:
                raise ValueError(f"status {status}")
            return _sight(found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Sight(False, reason=f"GET {self._socket} /lb: {str(error) or type(error).__name__}")

    async def close(self) -> None:
        """Nothing is held between two questions."""


def _sight(found: dict[str, Any]) -> Sight:
    rows: Iterable[dict[str, Any]] = [*found["gone"], *found["peers"]]
    inflight = {str(row["id"]): int(row["inflight"]) for row in rows}
    observed = {
        str(row["id"]): Observed(int(row["good"]), int(row["failed"]), int(row["failed_in_row"]))
        for row in found["peers"]
    }
    return Sight(True, str(found["view"]), inflight, True, observed)
