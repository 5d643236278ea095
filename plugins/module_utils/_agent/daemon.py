# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of a balancer: one process, one event loop, and everything that it must never lose on disk.

``python -m ansible_collections.llmops.vllm.plugins.module_utils._agent.daemon /etc/llm-agent`` is what the unit runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import pwd
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent import exposition, rotation, systemd
from ansible_collections.llmops.vllm.plugins.module_utils._agent.backend import Backend
from ansible_collections.llmops.vllm.plugins.module_utils._agent.config import Config, load
from ansible_collections.llmops.vllm.plugins.module_utils._agent.control import ControlServer
from ansible_collections.llmops.vllm.plugins.module_utils._agent.engine import Engine, Sight
from ansible_collections.llmops.vllm.plugins.module_utils._agent.fleet import Fleet, Resolver
from ansible_collections.llmops.vllm.plugins.module_utils._agent.hold import Hold
from ansible_collections.llmops.vllm.plugins.module_utils._agent.log import Log
from ansible_collections.llmops.vllm.plugins.module_utils._agent.membership import Membership
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Change, View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.neighbours import Neighbours
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_lua import NginxLua
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_native import Limits as Reloads
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_native import NginxNative
from ansible_collections.llmops.vllm.plugins.module_utils._agent.peer import PeerServer
from ansible_collections.llmops.vllm.plugins.module_utils._agent.recovery import Recovery
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import Store
from ansible_collections.llmops.vllm.plugins.module_utils._agent.tasks import end
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

WORKERS = "www-data"  # user of NGINX's workers
PUBLISH_SECONDS = 1.0  # at the latest; at once when a replica or its administrative state changed
BEAT_SECONDS = 0.1  # probes are started, and their answers judged, in this rhythm
LOOK_SECONDS = 0.5  # at the engine
LOOK_AGAIN_SECONDS = 0.1  # while it does not answer: it restarts within a tenth of a second
HOUSEKEEPING_SECONDS = 1.0


class Agent:
    """Everything that the agent holds, and the loops that move it."""

    def __init__(self, config: Config) -> None:
        state, run = Path(config.state), Path(config.run)
        self.config, self.log = config, Log()
        self.started = time.time()
        self.code = Path(__file__.partition("/ansible_collections/")[0]).resolve().name  # the digest of the code
        self.store = Store(state / "admin.json")
        self.membership = Membership(
            Path(config.directory) / "pools.d", state / "membership.json", self.store.is_active
        )
        last = rotation.remembered(state / "view.json") or View()
        self.fleet = Fleet(config.limits, config.keys[0], {peer.id: peer.state == "up" for peer in last.peers})
        self.settings = View((), config.slow_start, config.retry_percent, config.retry_burst)
        self.engine: Engine = _engine(config)
        self.sight = Sight(alive=False, reason="not asked yet")
        self.rotation = rotation.Rotation(self.engine, state / "view.json", self.log.state)
        self.hold = Hold(run)
        self.neighbours = Neighbours(config.peers, config.keys, self.log)
        self.recovery = Recovery(config.wedged_seconds, config.wedged_restarts_per_hour, state / "recovery.json")
        self._resolver = Resolver()
        self._was_in_force = False
        self._publish_at = 0.0

    # --- what people and other agents ask

    async def publish(self) -> None:
        """Give the engine what membership, operators and judges say now."""
        states = {ident: self.store.intent(ident).state for ident in self.fleet.members}
        self.fleet.administer(states)
        members = [self.fleet.members[ident] for ident in sorted(self.fleet.members)]
        self.rotation.want(rotation.view_of(members, states, self.fleet.verdicts(), self.settings))

    async def take_members(self) -> None:
        """Bring judges and probes in step with the membership."""
        await self._resolver.look_up(self.membership.members)
        members = list(self._resolver.resolved(self.membership.members))
        if {member.id: member for member in members} != self.fleet.members:
            before, after = set(self.fleet.members), {member.id for member in members}
            self.fleet.set_members(members)
            # whoever is a member still, its name only without an address for the moment, is not forgotten
            self.store.forget(before - {member.id for member in self.membership.members})
            self.log.event("members", added=sorted(after - before), removed=sorted(before - after), count=len(after))

    # --- loops

    async def run(self) -> None:
        """Run until SIGTERM."""
        backend = Backend(self)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self.membership.poll()
        await self.take_members()
        await self.publish()
        control = ControlServer(
            backend, f"{self.config.run}/control.sock", lambda trace: self.log.event("error", reason=trace)
        )
        peers = PeerServer(
            lambda: exposition.text(backend.status(), self.log.counts), backend.payload, lambda: self.config.keys
        )
        await control.start()
        self.log.event("start", engine=self.config.engine, members=len(self.fleet.members), name=self.config.name)
        loops = [
            self._forever(self._beat, BEAT_SECONDS),
            self._forever(self._look, 0),
            self._forever(self._keep_house, HOUSEKEEPING_SECONDS),
            self.rotation.run(),
            self.neighbours.run(self._merge),
            self._listen(peers),
        ]
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(loop) for loop in loops]
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        systemd.notify("READY=1")
        done, _pending = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        systemd.notify("STOPPING=1")
        await end([*tasks, stopping])
        await control.close()
        await peers.close()
        self.fleet.close()
        await self.engine.close()
        self.log.event("stop")
        for task in done - {stopping}:
            task.result()  # a loop never ends by itself: this raises what ended it

    async def _forever(self, turn: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            await turn()
            if seconds:
                await asyncio.sleep(seconds)

    async def _listen(self, peers: PeerServer) -> None:
        # The address may be missing after a boot, the port be taken: the agent is of use without it, too.
        place, problem = f"{self.config.address}:{self.config.port}", "not tried"
        while problem:
            try:
                await peers.start(self.config.address, self.config.port)
                problem = ""
            except OSError as error:
                problem = f"{place} cannot be listened on: {error.strerror or error}"
            self.log.state("port", problem)
            await asyncio.sleep(5 if problem else 0)
        await asyncio.Event().wait()

    async def _beat(self) -> None:
        self.fleet.start_due()
        changes = self.fleet.tick()
        for change in changes:
            self.log.change(change)
        # what no change tells of (weights of a pool that is degraded as a whole) can wait a second
        if changes or time.monotonic() >= self._publish_at:
            self._publish_at = time.monotonic() + PUBLISH_SECONDS
            await self.publish()

    async def _look(self) -> None:
        self.sight = await self.engine.look()
        alive = self.hold.engine(self.sight.alive, time.monotonic())
        self.log.state("engine answers", "" if self.sight.alive else self.sight.reason)
        if self.sight.alive:
            self.fleet.observe(self.sight.observed)
            if self.sight.view != self.rotation.confirmed:
                self.rotation.lost()
        self._hold(alive)
        await asyncio.sleep(LOOK_SECONDS if self.sight.alive else LOOK_AGAIN_SECONDS)

    def _hold(self, engine_alive: bool) -> None:
        self._was_in_force = self._was_in_force or self.rotation.in_force
        present = self.store.balancer.state == "present"
        if present and engine_alive and not (self.neighbours.synced and self._was_in_force):
            return  # just started: what held before goes on until this agent knows what its peers know
        self.hold.set(present and engine_alive)

    async def _keep_house(self) -> None:
        systemd.notify("WATCHDOG=1")
        self.membership.poll()
        await self.take_members()
        self.store.retry()
        self.log.state("membership", "; ".join(self.membership.problems))
        self.log.state("store", "; ".join(self.store.problems))
        verdicts = self.fleet.verdicts()
        changes = self.recovery.consider(
            wedged={
                ident: time.time() - verdict.wedged_since
                for ident, verdict in verdicts.items()
                if verdict.wedged_since is not None
            },
            pools={ident: member.pool for ident, member in self.fleet.members.items()},
            drained={ident for ident in verdicts if not self.store.is_active(ident)},
            leased=set(self.store.leases()) | self.neighbours.leased,
            up={ident for ident, verdict in verdicts.items() if verdict.in_rotation},
            arbiter=self.neighbours.first(self.config.name),
            heard=self.neighbours.permits,
        )
        self.log.state("recovery", "; ".join(self.recovery.problems))
        for change in changes:
            self.log.change(change)

    def _merge(self, name: str, admin: Any) -> None:
        known = {member.id for member in self.membership.members}
        self._publish_at = 0.0
        for ident in self.store.merge({ident: said for ident, said in admin.items() if ident in known}):
            intent = self.store.intent(ident)
            reason = intent.reason or f"by {intent.by}" if intent.by else "told by a peer"
            numbers = {"generation": intent.generation, "peer": name}
            self.log.change(Change(ident, "administrative", "", intent.state, reason, numbers))


def _engine(config: Config) -> Engine:
    if config.engine == "nginx_lua":
        return NginxLua(config.admin_socket)
    return NginxNative(
        pwd.getpwnam(WORKERS).pw_uid,
        config.status_port,
        f"{config.state}/nginx-view.json",
        f"{config.run}/observe.sock",
        Reloads(interval=config.reload_interval),
    )


def main(arguments: list[str]) -> int:
    """Run the agent with the configuration in a directory; 2 when that cannot be used."""
    directory = arguments[1] if len(arguments) == 2 else "/etc/llm-agent"
    try:
        config = load(directory)
    except LlmopsError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(config))
    return 0


async def _run(config: Config) -> None:
    # made here: what waits for a loop belongs to the running one, from its first moment on
    await Agent(config).run()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
