"""A pool of simulated replicas and a simulated prober around a real judge: minutes pass in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.llmops.vllm.plugins.module_utils._agent.judge import PoolJudge
from ansible_collections.llmops.vllm.plugins.module_utils._agent.limits import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Scrape

LIMITS = Limits()
STEP = 0.1  # seconds of a turn of the simulation: the agent's own beat


class Server:
    """A simulated replica: steps while it has work, and whatever goes wrong with it."""

    def __init__(self) -> None:
        self.connect = "ok"
        self.answers = True  # the API process answers /metrics and completions
        self.engine = True  # the engine makes steps
        self.takes_new = True  # completions reach the engine
        self.readable = True  # /metrics is what vLLM writes
        self.told = True  # the gauges go on while the engine stands still; those of vLLM stay at their last values
        self.status = 200
        self.garbage = False
        self.seconds = 0.05  # of a completion, queue aside
        self.load = 4  # requests of clients that run
        self.waiting = 0
        self.kv_usage, self.memory = 0.1, 1 << 30
        self.steps, self.ttft_sum, self.queue_sum, self.ttft_count = 100.0, 0.0, 0.0, 0
        self.queue_seconds = 0.0
        self.requests_per_second = 4.0
        self.own = 0  # probes that it works on
        self.asked = {"connect": 0, "scrape": 0, "complete": 0}  # probes so far
        self._due = 0.0
        self._gauges = (0, 0)

    def run(self, seconds: float) -> None:
        if self.engine and self.load + self.own:
            self.steps += seconds / 0.02
        if self.engine and self.load and self.takes_new:
            self._due += seconds * self.requests_per_second
            while self._due >= 1:
                self._due -= 1
                self.began()
        if self.engine or self.told:
            self._gauges = (self.load + self.own, self.waiting)

    def began(self) -> None:
        """Somebody got a first token."""
        self.ttft_count += 1
        self.ttft_sum += self.seconds + self.queue_seconds
        self.queue_sum += self.queue_seconds

    def scrape(self) -> Scrape:
        running, waiting = self._gauges
        numbers = (self.kv_usage, self.memory, self.ttft_sum, self.ttft_count, self.queue_sum, self.ttft_count)
        return Scrape(running, waiting, int(self.steps), *numbers)


class Sim:
    """A pool of simulated replicas under the agent's rhythm."""

    def __init__(self, count: int, limits: Limits = LIMITS, remembered: bool = True) -> None:
        self.now = 1000.0
        self.limits = limits
        self.servers = {f"g{number}/r0": Server() for number in range(count)}
        self.judge = PoolJudge("chat", limits, lambda: self.now, lambda: self.now + 1e9)
        self.judge.set_members(list(self.servers), dict.fromkeys(self.servers, remembered))
        self.pending: dict[tuple[str, str], Callable[[], bool]] = {}
        self.changes: list[tuple[float, str, str, str]] = []
        self.drained: set[str] = set()
        self.began = self.now

    def __getitem__(self, number: int) -> Server:
        return self.servers[f"g{number}/r0"]

    def run(self, seconds: float, each: Callable[[], None] | None = None) -> Sim:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            if each:
                each()
            for server in self.servers.values():
                server.run(STEP)
            for ident in self.servers:
                self._probe(ident)
            self.judge.tick()
            for change in self.judge.changes():
                assert change.reason
                self.changes.append((self.now - self.began, change.replica, change.before, change.after))
        return self

    def _probe(self, ident: str) -> None:
        due, server, now = self.judge.due(ident), self.servers[ident], self.now
        if ("connect", ident) not in self.pending and now >= due.connect:
            server.asked["connect"] += 1
            self.pending["connect", ident] = self._connect(ident, server, now)
        if ("scrape", ident) not in self.pending and now >= due.scrape:
            server.asked["scrape"] += 1
            self.pending["scrape", ident] = self._scrape(ident, server, now)
        if ("complete", ident) not in self.pending and due.completion is not None and now >= due.completion:
            server.asked["complete"] += 1
            self.pending["complete", ident] = self._complete(ident, server, now)
        for kind in ("connect", "scrape", "complete"):
            if (kind, ident) in self.pending and self.pending[kind, ident]():
                del self.pending[kind, ident]

    def _connect(self, ident: str, server: Server, began: float) -> Callable[[], bool]:
        def turn() -> bool:
            if server.connect == "timeout" and self.now - began < self.limits.connect_timeout:
                return False
            self.judge.connected(ident, server.connect)
            return True

        return turn

    def _scrape(self, ident: str, server: Server, began: float) -> Callable[[], bool]:
        def turn() -> bool:
            late = self.now - began >= self.limits.probe_timeout
            if server.connect == "refused":
                self.judge.scraped(ident, None, "refused", began)
            elif late:
                self.judge.scraped(ident, None, "timeout", began)
            elif server.answers and server.connect == "ok" and not server.readable:
                self.judge.scraped(ident, None, "garbage", began)
            elif server.answers and server.connect == "ok":
                self.judge.scraped(ident, server.scrape(), "ok", began)
            else:
                return False
            return True

        return turn

    def _complete(self, ident: str, server: Server, began: float) -> Callable[[], bool]:
        worked = 0.0
        taken = 1 if server.takes_new and server.status == 200 else 0
        server.own += taken

        def turn() -> bool:
            nonlocal worked
            able = server.answers and server.connect == "ok" and (server.takes_new or server.status != 200)
            worked += STEP if able and (server.engine or server.status != 200) else 0
            word = ""
            if server.connect == "refused":
                word = "refused"
            elif able and server.status != 200:
                word = "busy" if server.status == 503 else "error"
            elif able and server.garbage:
                word = "garbage"
            elif able and worked >= server.seconds + server.queue_seconds:
                word = "ok"
            elif self.now - began >= self.limits.probe_timeout:
                word = "timeout"
            if not word:
                return False
            server.own -= taken
            if word == "ok":
                server.began()
            self.judge.completed(ident, word, self.now - began, server.status if able else 0, began)
            return True

        return turn

    def sleep(self, seconds: float) -> Sim:
        """Let time pass in which the agent itself does not run; its timers end before it reads what has come."""
        for ident, server in self.servers.items():
            for kind in ("connect", "scrape", "complete"):
                self.pending.pop((kind, ident), None)
            server.own = 0
        began = self.now
        self.now += seconds
        for ident, server in self.servers.items():
            server.run(seconds)
            self.judge.connected(ident, "timeout")
            self.judge.connected(ident, "timeout")
            self.judge.scraped(ident, None, "timeout", began)
            self.judge.completed(ident, "timeout", seconds, 0, began)
        return self

    def inside(self) -> list[int]:
        return [n for n in range(len(self.servers)) if self.judge.verdict(f"g{n}/r0").in_rotation]

    def out_after(self, number: int = 0) -> float:
        """Seconds until the replica left."""
        ident = f"g{number}/r0"
        times = [at for at, who, _before, after in self.changes if who == ident and after == "down"]
        assert times, self.changes
        return times[0]

    def mark(self) -> Sim:
        self.began, self.changes = self.now, []
        return self


def pool(count: int = 4, settle: float = 15, **options: object) -> Sim:
    return Sim(count, **options).run(settle).mark()  # type: ignore[arg-type]


def refuse(server: Server) -> None:
    server.connect = "refused"


def vanish(server: Server) -> None:
    server.connect, server.answers, server.engine = "timeout", False, False


def freeze_engine(server: Server) -> None:
    server.engine = False


def freeze_idle_engine(server: Server) -> None:
    server.engine, server.load = False, 0


def freeze_process(server: Server) -> None:
    server.answers, server.engine = False, False


def fail(server: Server) -> None:
    server.status = 500


def refuse_key(server: Server) -> None:
    server.status = 401


def babble(server: Server) -> None:
    server.garbage = True


def idle_503(server: Server) -> None:
    server.status, server.load = 503, 0


def slow_down(server: Server) -> None:
    server.seconds = 2.0


def stall(sim: Sim, what: str, at: float, seconds: float) -> Callable[[], None]:
    def each() -> None:
        still = at <= sim.now - sim.began < at + seconds
        sim[0].engine = not still
        sim[0].answers = not (still and what == "process")

    return each


def hang(server: Server) -> None:
    """New work is never answered, what runs goes on."""
    server.takes_new = False


def hang_idle(server: Server) -> None:
    server.takes_new, server.load = False, 0


def freeze_idle_as_vllm(server: Server) -> None:
    server.engine, server.load, server.told = False, 0, False
