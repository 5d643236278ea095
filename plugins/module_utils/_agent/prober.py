# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends the probes that a judge asks for, and tells it what came back. Decides nothing."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent import scrape
from ansible_collections.llmops.vllm.plugins.module_utils._agent.channel import Channel, Connect, Outcome
from ansible_collections.llmops.vllm.plugins.module_utils._agent.judge import PoolJudge
from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Member, Scrape

# More than one token: the CPU build of vLLM loses its worker when the first request after a start has a single one.
PROMPT = "Say one word:"


class Probes:
    """The probes of one replica: at most one of each kind is under way."""

    def __init__(self, member: Member, judge: PoolJudge, limits: Limits, key: str) -> None:
        self.member, self._judge, self._limits = member, judge, limits
        self.last_scrape: Scrape | None = None
        self._connect: Connect | None = None
        self._lost = False
        self._scrape = Channel(member.address, member.port, keep=True, on_lost=self._on_lost)
        self._completion = Channel(member.address, member.port, keep=False)
        host = f"[{member.address}]" if ":" in member.address else member.address
        self._ask_metrics = f"GET /metrics HTTP/1.1\r\nHost: {host}:{member.port}\r\n\r\n".encode()
        body = json.dumps(
            {"model": member.model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
        ).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{member.port}\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._ask_completion = head.encode() + body

    def start_due(self, now: float) -> None:
        """Start every probe whose time has come."""
        due = self._judge.due(self.member.id)
        if self._connect is None and (now >= due.connect or self._lost):
            self._lost = False
            self._connect = Connect(
                self.member.address, self.member.port, self._limits.connect_timeout, self._on_connected
            )
        if now >= due.scrape and not self._scrape.busy:
            self._scrape.send(self._ask_metrics, self._limits.probe_timeout, self._scraped(now))
        if due.completion is not None and now >= due.completion and not self._completion.busy:
            self._completion.send(self._ask_completion, self._limits.probe_timeout, self._completed(now))

    def _on_lost(self) -> None:
        self._lost = True  # a process that died closes its connections: no need to wait for the next turn

    def _on_connected(self, outcome: Outcome) -> None:
        self._connect = None
        self._judge.connected(self.member.id, "broken" if outcome == "garbage" else outcome)

    def _scraped(self, began: float) -> Any:
        def ended(outcome: Outcome, status: int, body: bytes) -> None:
            found = scrape.read(body) if outcome == "ok" and status == 200 else None
            if outcome == "ok" and found is None:
                outcome = "garbage"
            self.last_scrape = found
            self._judge.scraped(self.member.id, found, outcome, began)

        return ended

    def _completed(self, began: float) -> Any:
        def ended(outcome: Outcome, status: int, body: bytes) -> None:
            seconds = time.monotonic() - began
            self._judge.completed(self.member.id, _told(outcome, status, body), seconds, status, began)

        return ended

    def close(self) -> None:
        """End what is under way; nothing is told any more."""
        if self._connect is not None:
            self._connect.cancel()
        self._scrape.close()
        self._completion.close()


def _told(outcome: Outcome, status: int, body: bytes) -> Any:
    """What a completion means: only a token that was generated is ``ok``."""
    if outcome != "ok":
        return outcome
    if status == 503:
        return "busy"
    if status != 200:
        return "error"
    try:
        document = json.loads(body)
        return "ok" if document["usage"]["completion_tokens"] >= 1 and document["choices"] else "garbage"
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "garbage"
