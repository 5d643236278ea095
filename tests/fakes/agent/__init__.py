"""A small agent: the real control server, the real store, the real rule of refusal; an engine and health in memory.

It stands in where a test is about what people, modules and playbooks ask, and not about probes or NGINX. As a program
(``python -m tests.fakes.agent``) it reads the world from a file, each time it is asked:
``{"replicas": {"gpu1/r0": {"pool": "chat", "inflight": 2, "health": "up"}}, "minimum": 1}``.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent import admission
from ansible_collections.llmops.vllm.plugins.module_utils._agent.control import (
    ControlServer,
    Invalid,
    Refused,
    Unavailable,
    Unknown,
)
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API, Administrative
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import LeaseHeld, Presence, Store

STARTED = "2027-01-31T03:00:00Z"


class SmallAgent:
    """The backend of the control server. Tests write ``world`` (or the file that it is read from) and ``engine``."""

    def __init__(self, store: Store, world: dict[str, Any] | pathlib.Path, host: str = "lb1") -> None:
        self._store = store
        self._world = world
        self._host = host
        self.api = API
        self.confirms = True

    @property
    def world(self) -> dict[str, Any]:
        return json.loads(self._world.read_text()) if isinstance(self._world, pathlib.Path) else self._world

    def status(self) -> dict[str, Any]:
        world = self.world
        rows = [self._row(replica, about) for replica, about in world["replicas"].items()]
        drained = sorted(row["id"] for row in rows if row["administrative"] == "drained")
        view = f"view-{len(drained)}"
        return {
            "api": self.api,
            "agent": {"host": self._host, "engine": "nginx_lua", "started": STARTED, "code": "0123456789ab"},
            "balancer": {"state": self._store.balancer.state, "synced": True, "may_hold_address": self._present()},
            "engine": {
                "alive": True,
                "view": view,
                "wanted_view": view,
                "confirmed": True,
                "exact": True,
                "reason": "",
            },
            "peers": world.get("peers", []),
            "generation": self._store.generation,
            "membership": {"digest": "d" * 12, "writers": ["site"], "problems": world.get("problems", [])},
            "pools": [self._pool(name, rows, world) for name in dict.fromkeys(row["pool"] for row in rows)],
            "replicas": rows,
        }

    def _present(self) -> bool:
        return self._store.balancer.state == "present"

    def _row(self, replica: str, about: Mapping[str, Any]) -> dict[str, Any]:
        intent = self._store.intent(replica)
        health = about.get("health", "up")
        return {
            "id": replica,
            "pool": about["pool"],
            "address": "192.0.2.21",
            "port": 8000,
            "administrative": intent.state,
            "health": health,
            "in_rotation": intent.state == "active" and health != "down",
            "reason": "" if health == "up" else "connection refused",
            "kind": "" if health == "up" else "fact",
            "held": False,
            "since": STARTED,
            "weight": 1.0,
            "inflight": about.get("inflight", 0),
            "running": about.get("inflight", 0),
            "waiting": 0,
            "generation": intent.generation,
            "by": intent.by,
            "note": f"{intent.reason} ({intent.by})" if intent.reason and intent.by else intent.reason or intent.by,
        }

    def _pool(self, name: str, rows: Sequence[Mapping[str, Any]], world: Mapping[str, Any]) -> dict[str, Any]:
        own = [row for row in rows if row["pool"] == name]
        return {
            "name": name,
            "members": len(own),
            "in_rotation": sum(row["in_rotation"] for row in own),
            "minimum": world.get("minimum", 1),
            "panic": False,
            "lease": self._store.leases().get(name),
        }

    def explain(self, replica: str) -> dict[str, Any]:
        row = next((row for row in self.status()["replicas"] if row["id"] == replica), None)
        if row is None:
            raise Unknown(f"{replica} is no member: there are {', '.join(self.world['replicas'])}")
        change = {"time": STARTED, "event": "health", "before": "up", "after": row["health"], "reason": row["reason"]}
        about = self.world["replicas"][replica]
        return {
            **row,
            "numbers": {"ttft_p50": 0.123},
            "history": [change],
            "incident": about.get("incident"),
        }

    async def set_state(
        self, replicas: Sequence[str], state: Administrative, reason: str, by: str, force: bool
    ) -> dict[str, Any]:
        members = {replica: about["pool"] for replica, about in self.world["replicas"].items()}
        foreign = [replica for replica in replicas if replica not in members]
        if foreign:
            raise Unknown(f"{', '.join(foreign)}: no such member; there are {', '.join(members)}")
        if not self.confirms or self.world.get("dead"):
            raise Unavailable("the engine did not confirm the view: nothing was changed")
        intents = {replica: self._store.intent(replica) for replica in replicas}
        before = {replica: intent.state for replica, intent in intents.items()}
        changed = [one for one, said in intents.items() if admission.is_another(said.state, said.by, state, by)]
        pools = admission.pools_of(self.status())
        words = admission.refusal(pools, members, changed, state == "drained", by, force)
        if words:
            raise Refused(words)
        done = self._store.set(replicas, state, reason, by)
        after = {replica: self._store.intent(replica).state for replica in replicas}
        return {"changed": bool(done), "before": before, "after": after, "generation": self._store.generation}

    async def lease(self, pool: str, holder: str, seconds: float) -> dict[str, Any]:
        self._known_pool(pool)
        try:
            return {"lease": self._store.describe(self._store.take_lease(pool, holder, seconds))}
        except LeaseHeld as problem:
            raise Refused(str(problem)) from None

    async def release(self, pool: str, holder: str) -> dict[str, Any]:
        self._known_pool(pool)
        try:
            self._store.release_lease(pool, holder)
        except LeaseHeld as problem:
            raise Refused(str(problem)) from None
        return {"lease": None}

    def _known_pool(self, pool: str) -> None:
        if pool not in {about["pool"] for about in self.world["replicas"].values()}:
            raise Invalid(f"{pool} is no pool")

    async def set_balancer(self, state: Presence, by: str, reason: str) -> dict[str, Any]:
        before = self._store.balancer.state
        changed = self._store.set_balancer(state, reason, by)
        return {"changed": changed, "before": before, "after": state}


class Running:
    """A small agent in a thread of this process, on a socket; a context manager."""

    def __init__(self, base: pathlib.Path, world: dict[str, Any], **more: Any) -> None:
        base.mkdir(exist_ok=True)
        self.path = base / "control.sock"
        self.store = Store(base / "admin.json", time.monotonic, time.time)
        self.backend = SmallAgent(self.store, world, **more)
        self.world = world
        self.reports: list[str] = []
        self._seconds = 30.0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def within(self, seconds: float) -> Running:
        """Bound the making of an answer."""
        self._seconds = seconds
        return self

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_reason: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = ControlServer(self.backend, str(self.path), self.reports.append, self._seconds)
        await server.start()
        self._ready.set()
        await self._end.wait()
        await server.close()
