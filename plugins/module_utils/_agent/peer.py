# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent tells on the private network: metrics to everybody, its administrative state under a signature.

A peer that asks sends a nonce and gets it signed together with the payload: nobody without a backend key can tell an
agent that a replica is drained, or active again, and no old answer can be played once more.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._agent.exchange import exchange, over_tcp
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API
from ansible_collections.llmops.vllm.plugins.module_utils._agent.wire import Answer, Listener, Request, document
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

CONNECTIONS = 64
SECONDS = 5.0
HEAD = 8192
ASK_SECONDS = 2.0
_NONCE = re.compile(r"[0-9a-f]{16,64}")
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PeerError(LlmopsError):
    """A peer that did not answer, or whose answer cannot be believed; the text begins with its address."""


def canonical(payload: Mapping[str, Any]) -> str:
    """The one text of a payload over which signatures are made."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def signature(key: str, nonce: str, payload: Mapping[str, Any]) -> str:
    """HMAC-SHA256 of nonce, newline and payload, in hexadecimal."""
    return hmac.new(key.encode(), f"{nonce}\n{canonical(payload)}".encode(), hashlib.sha256).hexdigest()


def new_nonce() -> str:
    """A nonce that nobody can guess."""
    return secrets.token_hex(16)


def path(nonce: str) -> str:
    """The path that a reader asks for."""
    return f"/peer?nonce={nonce}"


def verified(where: str, body: bytes, keys: Sequence[str], nonce: str) -> dict[str, Any]:
    """The payload of an answer that one of the keys signed for this nonce; PeerError, which begins with ``where``."""
    try:
        found = json.loads(body)
        payload, mac = found["payload"], str(found["mac"])
        known = any(hmac.compare_digest(signature(key, nonce, payload).encode(), mac.encode()) for key in keys)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PeerError(f"{where}: the answer is none of an agent: {body[:80]!r}") from None
    if not known:
        raise PeerError(
            f"{where}: no key here fits the signature: let both balancers have a key of llmops_backend_keys in common"
        )
    if not isinstance(payload, dict) or payload.get("api") != API:
        theirs = payload.get("api") if isinstance(payload, dict) else None
        raise PeerError(
            f"{where}: that agent speaks API {theirs}, this one {API}: "
            "bring both to the same release of the collection (site.yml --tags balancers)"
        )
    return payload


class PeerServer:
    """The agent's port on the private network. It reads nothing but the head of a request, and changes nothing."""

    def __init__(
        self,
        metrics: Callable[[], str],
        payload: Callable[[], Mapping[str, Any]],
        keys: Callable[[], Sequence[str]],
        seconds: float = SECONDS,
    ) -> None:
        """``payload`` is what peers read, without ``api``; ``keys`` are the backend keys, the first one signs."""
        self._metrics = metrics
        self._payload = payload
        self._keys = keys
        self._listener = Listener(self._answer, connections=CONNECTIONS, seconds=seconds, head=HEAD)
        self._server: asyncio.AbstractServer | None = None

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port (a free one for 0); OSError when the address or the port is not to be had."""
        server = await asyncio.start_server(self._listener.connected, address, port, limit=HEAD, reuse_address=True)
        self._server = server
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        if self._server is not None:
            self._server.close()
            await self._listener.close()

    async def _answer(self, request: Request) -> Answer:
        if request.method != "GET":
            return document(400, {"error": {"message": "only GET is answered here"}})
        if request.path == "/metrics":
            return Answer(200, self._metrics().encode(), _METRICS_TYPE)
        keys = self._keys()
        if request.path != "/peer" or not keys:
            return document(404, {"error": {"message": "here are /metrics and, where there are keys, /peer"}})
        nonce = request.query.get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            return document(400, {"error": {"message": "nonce must be 16 to 64 digits of a hexadecimal number"}})
        payload = {**self._payload(), "api": API}
        return document(200, {"payload": payload, "mac": signature(keys[0], nonce, payload)})


async def ask(
    address: str, port: int, keys: Sequence[str], name: str = "", seconds: float = ASK_SECONDS
) -> dict[str, Any]:
    """Ask another agent, of this name, for its state, within so many seconds; PeerError says what went wrong and where.

    Agents have their keys in common: without the name, whoever is on the way could pass on the answer of another one.
    """
    sent = new_nonce()
    where = f"{address}:{port}"
    try:
        status, body = await exchange(over_tcp(address, port), "GET", path(sent), seconds=seconds)
    except OSError as problem:
        raise PeerError(f"{where}: {problem.strerror or problem}") from None
    if status != 200:
        raise PeerError(f"{where}: answered {status}: {body[:80]!r}")
    payload = verified(where, body, keys, sent)
    if name and payload.get("name") != name:
        raise PeerError(f"{where}: {payload.get('name')} answers there, and {name} was asked: correct the addresses")
    return payload
