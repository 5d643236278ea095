# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engine NGINX with its own upstream groups: each view is a reload, which a helper does as root (nginx_apply)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.llmops.vllm.plugins.module_utils._agent import files, nginx_host, rotation
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import EngineError, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.exchange import exchange_json, over_tcp
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_observed import Observations
from ansible_collections.llmops.vllm.plugins.module_utils._balancer.names import server_address

VIEW_FILE = "/var/lib/llm-agent/nginx-view.json"
OBSERVE_SOCKET = "/run/llm-agent/observe.sock"


@dataclass(frozen=True)
class Limits:
    """Seconds, and a number of generations of workers."""

    interval: float = 5  # between two reloads that nothing urges
    generations: int = 8  # of old workers, above which only urgent views reload
    confirm: float = 15  # until a view is in force
    again: float = 5  # then the file is written anew: a path unit may have missed it
    look: float = 0.1  # between two looks at what is in force
    settle: float = 0.5  # for which each look must find the view: old workers take connections for another 0.1 s
    leave: float = 1  # that old workers have to take no more requests, once new ones answer
    patience: float = 60  # of a view that can wait, however many generations there are


class NginxNative:
    """The engine whose workers run as user ``uid`` and whose health is told on ``status_port`` of 127.0.0.1."""

    def __init__(
        self,
        uid: int,
        status_port: int = 8081,
        view_file: str = VIEW_FILE,
        observe_socket: str = OBSERVE_SOCKET,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        old_generations: Callable[[], int] = nginx_host.old_generations,
        serving: Callable[[], set[int]] = nginx_host.serving,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uid, self._connect, self._file = uid, over_tcp("127.0.0.1", status_port), pathlib.Path(view_file)
        self._limits, self._clock = limits, clock
        self._old_generations, self._serving = old_generations, serving
        self._observations = Observations(observe_socket)
        self._port = status_port
        self._turn = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._newest = View()
        # an agent that starts must not call a replica idle before it has applied anything
        self._confirmed = rotation.remembered(self._file) or View()
        self._old: set[int] = set()  # workers that may take requests by a former view
        self._left: dict[str, str] = {}  # address:port of replicas that were in a view, while requests may run there
        self._reloaded = -limits.interval + clock()

    async def apply(self, view: View, urgent: bool) -> None:
        """Bring the view into force; EngineError when it is not in time.

        One that nothing urges waits for its turn. A view that a newer one overtakes is done when the newer one is.
        """
        self._newest = view
        if urgent:
            self._hurry.set()
        async with self._turn:
            if await self._in_force() == self._newest.id:  # as after a restart of the agent: nothing to reload
                self._hurry.clear()
                self._confirm(self._newest)
            else:
                await self._patience()
                await self._publish()
            await self._old_leave()

    async def _patience(self) -> None:
        """Wait until a reload is due, or urgent."""
        limit = self._clock() + self._limits.patience
        while not self._hurry.is_set() and self._clock() < limit:
            wait = self._reloaded + self._limits.interval - self._clock()
            if wait <= 0 and self._old_generations() > self._limits.generations:
                wait = self._limits.interval
            if wait <= 0:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), wait)

    async def _publish(self) -> None:
        """Hand the newest view over until NGINX shows it; an urgent one takes the place of one that is under way."""
        view, written, limit = self._newest, -self._limits.again, self._clock() + self._limits.confirm
        shown: float | None = None
        while self._clock() < limit:
            if self._hurry.is_set():
                self._hurry.clear()
                shown = None
                view, written, limit = self._newest, -self._limits.again, self._clock() + self._limits.confirm
            if self._clock() >= written + self._limits.again:
                self._old = self._old or self._serving()
                self._write(view.text())
                written = self._reloaded = self._clock()
            await asyncio.sleep(self._limits.look)
            if await self._in_force() != view.id:
                shown = None
            elif shown is None:
                shown = self._clock()
            elif self._clock() >= shown + self._limits.settle:
                self._confirm(view)
                return
        raise EngineError(
            f"NGINX has not taken view {view.id} within {self._limits.confirm:g} s (http://127.0.0.1:{self._port}"
            "/lb-health shows another): see journalctl -u llm-balancer-apply -u nginx"
        )

    def _confirm(self, view: View) -> None:
        self._left.update({peer.id: _place(peer.address, peer.port) for peer in self._confirmed.peers})
        self._confirmed = view

    async def _old_leave(self) -> None:
        """Wait until no worker of before takes requests: master and new workers need a tenth of a second for that."""
        limit = self._clock() + self._limits.leave
        while self._old & self._serving() and self._clock() < limit:
            await asyncio.sleep(self._limits.look / 2)
        self._old = set()

    def _write(self, text: str) -> None:
        """Replace the file, never leaving half a view; EngineError when the disk does not take it."""
        try:
            files.write(self._file, text)
        except OSError as error:
            raise EngineError(f"{self._file}: {error.strerror}: the view cannot be handed to NGINX") from error

    async def _in_force(self) -> str | None:
        try:
            _status, found = await exchange_json(self._connect, "GET", "/lb-health")
        except OSError:
            return None
        return str(found.get("view"))

    async def look(self) -> Sight:
        """Ask NGINX for its view and the kernel for its connections.

        The counts are exact for drained replicas: idle connections to them ended with the workers that kept them.
        """
        try:
            self._observations.open()
            _status, found = await exchange_json(self._connect, "GET", "/lb-health")
            open_now = nginx_host.connections(self._uid)
        except (OSError, ValueError) as error:
            return Sight(False, exact=False, reason=f"GET http://127.0.0.1:{self._port}/lb-health: {error}")
        places = {peer.id: _place(peer.address, peer.port) for peer in (self._confirmed.peers or self._newest.peers)}
        self._left = {id: place for id, place in self._left.items() if id not in places and open_now[place]}
        inflight = {id: open_now[place] for id, place in {**self._left, **places}.items()}
        return Sight(True, str(found.get("view")), inflight, False, self._observations.of(places))

    async def close(self) -> None:
        """Stop listening for observations."""
        self._observations.close()


def _place(address: str, port: int) -> str:
    """Return how the kernel's tables and NGINX's log spell an address."""
    with contextlib.suppress(ValueError):
        address = str(ipaddress.ip_address(address))
    return server_address(address, port)
