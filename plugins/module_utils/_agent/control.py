# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control socket: what people, playbooks and rollouts ask of the agent of this balancer.

HTTP with JSON over a unix socket, whose mode says who may. It is generic over a backend, which decides and acts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Protocol

from ansible_collections.llmops.vllm.plugins.module_utils._agent import wire
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import SOCKET
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API, Administrative
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import MAX_LEASE, Presence
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

CONNECTIONS = 64
READ_SECONDS = 5.0
ANSWER_SECONDS = 30.0
MAX_BODY = 1024 * 1024
MAX_TEXT = 1000  # characters of a reason or a name


class ControlError(LlmopsError):
    """A request that was not done; the class says how it is told."""

    status = 500


class Invalid(ControlError):
    """The request is not one that the API knows."""

    status = 400


class Unknown(ControlError):
    """It names what does not exist."""

    status = 404


class Refused(ControlError):
    """It is understood, and must not be done now."""

    status = 409


class Unavailable(ControlError):
    """It could not be done, or not be confirmed; the text says what is in force now."""

    status = 503


class Backend(Protocol):
    """What decides and acts. Every method may raise a ControlError; the documents are those of the API."""

    def status(self) -> Mapping[str, Any]:
        """All that is known, without asking anybody."""

    def explain(self, replica: str) -> Mapping[str, Any]:
        """The row of one replica with numbers, history and incident; Unknown names those that exist."""

    async def set_state(
        self, replicas: Sequence[str], state: Administrative, reason: str, by: str, force: bool
    ) -> Mapping[str, Any]:
        """Drain replicas or put them back, and return when the engine confirmed it."""

    async def lease(self, pool: str, holder: str, seconds: float) -> Mapping[str, Any]:
        """Take or prolong the lease of a pool."""

    async def release(self, pool: str, holder: str) -> Mapping[str, Any]:
        """Give the lease of a pool back."""

    async def set_balancer(self, state: Presence, by: str, reason: str) -> Mapping[str, Any]:
        """Take this balancer away, or bring it back."""


class ControlServer:
    """Serves a backend on a unix socket (mode 0660) until it is closed."""

    def __init__(
        self,
        backend: Backend,
        path: str = SOCKET,
        report: Callable[[str], None] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        """``report`` gets the traceback of what nobody foresaw; ``seconds`` bound the making of an answer."""
        self._backend = backend
        self._path = Path(path)
        self._report = report
        self._seconds = seconds
        self._listener = wire.Listener(
            self._handle, connections=CONNECTIONS, seconds=READ_SECONDS, body=MAX_BODY, answer=seconds + READ_SECONDS
        )
        self._server: asyncio.AbstractServer | None = None
        self._acting: set[asyncio.Future[Mapping[str, Any]]] = set()

    async def start(self) -> None:
        """Listen; a socket that a killed agent left is taken over. OSError when the path is not to be had."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()
        listening = socket.socket(socket.AF_UNIX)
        before = os.umask(0o117)  # chmod would leave a moment in which others may connect
        try:
            listening.bind(str(self._path))
        except OSError:
            listening.close()
            raise
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(
            self._listener.connected, sock=listening, limit=self._listener.head
        )

    async def close(self) -> None:
        """Stop listening, end what is open, remove the socket. What the backend has begun, it finishes."""
        if self._server is not None:
            self._server.close()
            await self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _handle(self, request: wire.Request) -> wire.Answer:
        try:
            content = await self._bounded(self._route(request))
        except ControlError as problem:
            return _failure(problem.status, str(problem))
        except Exception as problem:  # one request must not end the agent; it is told to both sides
            if self._report is not None:
                self._report(traceback.format_exc())
            return _failure(500, f"{type(problem).__name__}: {problem}: see journalctl -u llm-agent")
        return wire.document(200, {"api": API, **content})

    async def _bounded(self, work: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Wait for the backend, and never stop it half-way: a view that is being applied must be applied."""
        task = asyncio.ensure_future(work)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        done, _pending = await asyncio.wait({task}, timeout=self._seconds)
        if not done:
            raise Unavailable(
                f"not done after {self._seconds:g} s, and still being worked on: llm-balancer status tells"
            )
        return task.result()

    async def _route(self, request: wire.Request) -> Mapping[str, Any]:
        backend = self._backend
        route = (request.method, request.path)
        if route == ("GET", "/v1/status"):
            return backend.status()
        if route == ("GET", "/v1/replicas"):
            return backend.explain(_text(request.query.get("id"), "id"))
        if route == ("POST", "/v1/state"):
            body = _body(request, {"replicas", "state"}, {"reason": "", "by": "", "force": False})
            state = _choice(body["state"], "state", ("active", "drained"))
            told = {name: _text(body[name], name, empty=True) for name in ("reason", "by")}
            return await backend.set_state(_ids(body["replicas"]), state, force=_flag(body["force"], "force"), **told)
        if route == ("POST", "/v1/leases"):
            body = _body(request, {"pool", "holder", "seconds"}, {})
            seconds = _seconds(body["seconds"])
            return await backend.lease(_text(body["pool"], "pool"), _text(body["holder"], "holder"), seconds)
        if route == ("POST", "/v1/leases/release"):
            body = _body(request, {"pool", "holder"}, {})
            return await backend.release(_text(body["pool"], "pool"), _text(body["holder"], "holder"))
        if route == ("POST", "/v1/balancer"):
            body = _body(request, {"state"}, {"reason": "", "by": ""})
            presence = _choice(body["state"], "state", ("away", "present"))
            told = {name: _text(body[name], name, empty=True) for name in ("reason", "by")}
            return await backend.set_balancer(presence, **told)
        raise Unknown(f"{request.method} {request.path} is nothing that API {API} has")


def _failure(status: int, message: str) -> wire.Answer:
    return wire.document(status, {"api": API, "error": {"message": message}})


def _body(request: wire.Request, needed: set[str], optional: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(request.body)
    except (ValueError, RecursionError):
        raise Invalid("the body is no JSON") from None
    if not isinstance(found, dict):
        raise Invalid("the body is no JSON object")
    foreign = sorted(set(found) - needed - set(optional))
    if foreign:
        raise Invalid(f"unknown key {foreign[0]!r:.80}: known are {', '.join(sorted(needed | set(optional)))}")
    missing = sorted(needed - set(found))
    if missing:
        raise Invalid(f"missing: {', '.join(missing)}")
    return {**optional, **found}


def _text(value: Any, name: str, empty: bool = False) -> str:
    # what does not print could rewrite the terminal of whoever reads it at night
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable() or not (value or empty):
        raise Invalid(
            f"{name} must be a text of one line{'' if empty else ', not empty,'} of at most {MAX_TEXT} characters"
        )
    return value


def _ids(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise Invalid("replicas must be a list of ids, with one at least")
    return list(dict.fromkeys(_text(entry, "each of replicas") for entry in value))


def _choice(value: Any, name: str, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise Invalid(f"{name} is {value!r:.80}: {' or '.join(choices)} is wanted")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{name} is {value!r:.80}: true or false is wanted")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_LEASE:
        raise Invalid(f"seconds is {value!r:.80}: a number above 0, up to {MAX_LEASE:.0f}, is wanted")
    return float(value)
