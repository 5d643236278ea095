# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the agent of this host over its control socket: for modules and for the command ``llm-balancer``."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import quote

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

SOCKET = "/run/llm-agent/control.sock"
SECONDS = 40.0  # above what the agent allows itself
MAX_ANSWER = 32 * 1024 * 1024
SILENCE = 15.0  # seconds for which a wait goes on while the agent does not answer: it may be restarting
_Clock = Callable[[], float]


class AgentError(LlmopsError):
    """The agent refused, or did not answer. ``status`` is that of HTTP, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Waited:
    """How a wait for replicas ended."""

    inflight: dict[str, int | None]  # requests in flight from this balancer, as last seen; None is not known
    elapsed: float  # seconds

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return all(count == 0 for count in self.inflight.values())

    def words(self) -> str:
        """What is in flight, for people."""
        busy = {replica: count for replica, count in self.inflight.items() if count != 0}
        return ", ".join(f"{replica} {'not known' if count is None else count}" for replica, count in busy.items())


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Control:
    """The agent behind a control socket. Every method raises AgentError."""

    def __init__(self, path: str = SOCKET, seconds: float = SECONDS) -> None:
        self.path = path
        self._seconds = seconds

    def status(self) -> dict[str, Any]:
        """All that the agent knows."""
        return self._ask("GET", "/v1/status")

    def explain(self, replica: str) -> dict[str, Any]:
        """Why a replica is in rotation or not, with numbers, history and incident."""
        return self._ask("GET", f"/v1/replicas?id={quote(replica, safe='')}")

    def set_state(
        self, replicas: Sequence[str], state: str, reason: str = "", by: str = "", force: bool = False
    ) -> dict[str, Any]:
        """Drain replicas or put them back; returns when the engine confirmed it."""
        body = {"replicas": list(replicas), "state": state, "reason": reason, "by": by, "force": force}
        return self._ask("POST", "/v1/state", body)

    def lease(self, pool: str, holder: str, seconds: float) -> dict[str, Any]:
        """Take or prolong the lease of a pool."""
        return self._ask("POST", "/v1/leases", {"pool": pool, "holder": holder, "seconds": seconds})

    def release(self, pool: str, holder: str) -> dict[str, Any]:
        """Give the lease of a pool back."""
        return self._ask("POST", "/v1/leases/release", {"pool": pool, "holder": holder})

    def set_balancer(self, state: str, by: str = "", reason: str = "") -> dict[str, Any]:
        """Take this balancer away, or bring it back."""
        return self._ask("POST", "/v1/balancer", {"state": state, "by": by, "reason": reason})

    def wait_idle(
        self,
        replicas: Sequence[str],
        limit: float,
        interval: float = 0.25,
        clock: _Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        progress: Callable[[Waited], None] | None = None,
    ) -> Waited:
        """Wait until no request is in flight from here to these drained replicas, for so many seconds at most.

        Nothing must be in flight twice in a row. A replica that is put back meanwhile, or leaves, is an error.
        """
        began = heard = clock()
        quiet = 0
        seen = Waited(dict.fromkeys(replicas), 0.0)
        while True:
            try:
                inflight = drained_inflight(self.status(), replicas)
                heard = clock()
            except AgentError as problem:
                if problem.status or clock() - heard > SILENCE:
                    raise
                inflight = dict.fromkeys(replicas)
            seen = Waited(inflight, round(clock() - began, 2))
            quiet = quiet + 1 if seen.idle else 0
            if quiet == 2 or (seen.elapsed >= limit and not quiet):
                return seen
            if progress is not None and not quiet:
                progress(seen)
            sleep(interval)

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = _Connection(self.path, self._seconds)
        where = f"{method} {path} at {self.path}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER)
        except (FileNotFoundError, ConnectionRefusedError):
            raise AgentError(
                f"the agent does not run: nobody listens at {self.path}: systemctl status llm-agent"
            ) from None
        except PermissionError:
            raise AgentError(f"{self.path} may not be opened: be root, or a member of the group llm-agent") from None
        except socket.timeout:
            raise AgentError(f"{where}: no answer within {self._seconds:g} s: journalctl -u llm-agent") from None
        except (OSError, http.client.HTTPException) as problem:
            raise AgentError(f"{where}: {str(problem) or type(problem).__name__}: journalctl -u llm-agent") from None
        finally:
            connection.close()
        return _document(where, answer.status, data)


def _document(where: str, status: int, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise AgentError(f"{where}: answered {status} without a JSON object: {data[:80]!r}", status)
    if "api" in found and found["api"] != API:
        raise AgentError(
            f"the agent on this host speaks API {found['api']}, this collection {API}: bring both to the same release "
            "(site.yml --tags balancers, with the newer collection)",
            status,
        )
    if status != 200:
        error = found.get("error")
        told = error.get("message") if isinstance(error, dict) else None
        raise AgentError(str(told or f"{where}: answered {status}"), status)
    return found


def drained_inflight(status: Mapping[str, Any], replicas: Sequence[str]) -> dict[str, int | None]:
    """What is in flight to replicas that must be drained; AgentError when one is not, or is not there any more."""
    rows = {row["id"]: row for row in status["replicas"]}
    for replica in replicas:
        if replica not in rows:
            raise AgentError(f"{replica} is no member any more: whether it is idle cannot be told from here", 404)
        if rows[replica]["administrative"] != "drained":
            raise AgentError(f"{replica} is active: somebody put it back ({rows[replica]['note'] or 'no note'})", 409)
    return {replica: rows[replica]["inflight"] for replica in replicas}
