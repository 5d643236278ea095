"""FAKE vLLM: the API server with its measured vices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pathlib
import random
import signal
import socket
import struct
import time
from typing import Any

from vllm import __version__
from vllm.fake import completions, hostile, http
from vllm.fake.completions import Ask, Refused
from vllm.fake.engine import Engine, EngineDead, Generation
from vllm.fake.faults import Faults
from vllm.fake.metrics import Metrics
from vllm.fake.processes import EngineProcess, start_engine

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_GENERATE = (completions.TEXT, completions.CHAT)
_UNCOUNTED = ("/health", "/metrics", "/load", "/ping", "/version", "/fake/fault")
# Measured, seconds after the death of engine or worker: the port closes, the server exits with status 0.
_CLOSES_AFTER, _EXITS_AFTER = {"engine": 0.4, "worker": 2.4}, {"engine": 3.0, "worker": 4.8}
_LOOK_FOR_CLIENTS_SECONDS = 0.1
_FULL = "The server is overloaded: the request queue is full."
_SHUT_DOWN = "cannot schedule new futures after shutdown"


def _seconds(name: str, default: str) -> float:
    return float(os.environ.get(name, default))


class Server:
    """State of one server: faults, drain, open connections."""

    def __init__(self, args: Any, config: Any, process: EngineProcess) -> None:
        self.args = args
        self.names: list[str] = args.served_model_name or [args.model]
        self.length: int = config.model_config.max_model_len
        kv_bytes = args.kv_cache_memory_bytes or 1 << 26
        kv_tokens = max(1, kv_bytes // 512)
        cache = {"block_size": "128", "cache_dtype": args.kv_cache_dtype, "num_gpu_blocks": str(kv_tokens // 128)}
        cache |= {"enable_prefix_caching": str(args.enable_prefix_caching is not False)}
        cache |= {"gpu_memory_utilization": str(args.gpu_memory_utilization), "kv_cache_memory_bytes": str(kv_bytes)}
        cache |= {"kv_cache_max_concurrency": str(kv_tokens / self.length), "kv_cache_size_tokens": str(kv_tokens)}
        self.metrics = Metrics(self.names[0], cache)
        model = str(pathlib.Path(args.model).resolve())
        by_priority = args.scheduling_policy == "priority"
        self.engine = Engine(process, model, args.max_num_seqs, kv_tokens, by_priority, self.metrics)
        self.faults = Faults(self.engine)
        self.keep_alive = _seconds("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")
        self.admission = _seconds("FAKE_VLLM_ADMISSION_MS", "2") / 1000
        self.keys = set(args.api_key or filter(None, [os.environ.get("VLLM_API_KEY")]))
        self.draining = False
        self.over = asyncio.Event()
        self.listening: asyncio.AbstractServer | None = None
        self._served: dict[Generation, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self._numbers = itertools.count()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it ends."""
        idle = None
        with contextlib.suppress(ConnectionError):
            try:
                while request := await http.read(reader, writer, idle):
                    if not await self.handle(request, reader, writer) or not request.keep:
                        break
                    idle = self.keep_alive
            except http.BadRequest:
                writer.write(http.answer(400, "Invalid HTTP request received.", "text/plain"))
        writer.close()

    async def handle(self, request: http.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False closes the connection."""
        begin = time.monotonic()
        if request.path == "/fake/fault":
            self._send(writer, request, *self._switch(request), begin)
        elif self.faults.kind == "hang_after_accept":
            await self.over.wait()
            return False
        elif self.faults.kind in hostile.ANSWERS:
            await hostile.ANSWERS[self.faults.kind](writer)
            return False
        elif self.keys and request.path.startswith(_GUARDED) and not self._authorized(request):
            self._send(writer, request, 401, http.answer(401, {"error": "Unauthorized"}), begin)
        elif request.path in _GENERATE:
            return await self._generate(request, reader, writer, begin)
        else:
            self._send(writer, request, *self._look(request), begin)
        await writer.drain()
        return True

    def _authorized(self, request: http.Request) -> bool:
        scheme, _sep, key = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and key in self.keys

    def _send(
        self, writer: asyncio.StreamWriter, request: http.Request, status: int, content: bytes, begin: float
    ) -> None:
        if request.path not in _UNCOUNTED:
            handler = "none" if status == 404 and request.path not in _GENERATE else request.path
            self.metrics.answered(handler, request.method, status, time.monotonic() - begin)
        writer.write(content)

    def _switch(self, request: http.Request) -> tuple[int, bytes]:
        """Turn a fault on or off: from this host alone."""
        if request.peer not in ("127.0.0.1", "::1", self.args.host):
            return 404, http.answer(404, {"detail": "Not Found"})
        try:
            self.faults.switch(request.document())
        except (ValueError, TypeError) as problem:
            return 400, http.error(400, str(problem))
        return 200, http.answer(200, {"kind": self.faults.kind})

    def _look(self, request: http.Request) -> tuple[int, bytes]:
        """Everything that asks no engine, and therefore answers while the engine is frozen."""
        running, waiting = len(self.engine.running), len(self.engine.waiting)
        if request.path == "/metrics":
            page = self.metrics.text(running, waiting, self.engine.kv_usage)
            return 200, http.answer(200, page, "text/plain; version=0.0.4; charset=utf-8")
        if request.path in ("/health", "/ping"):
            status = 503 if self.engine.dead.is_set() else 200
            return status, http.answer(status, "")
        if request.path == "/tokenize":
            return self._tokenize(request)
        models = [
            {"id": name, "object": "model", "owned_by": "vllm", "root": self.args.model, "max_model_len": self.length}
            for name in self.names
        ]
        pages: dict[str, Any] = {
            "/version": {"version": __version__},
            "/load": {"server_load": running + waiting if self.args.enable_server_load_tracking else 0},
            "/v1/models": {"object": "list", "data": models},
        }
        if request.path not in pages:
            return 404, http.answer(404, {"detail": "Not Found"})
        if request.method != "GET":
            return 405, http.answer(405, {"detail": "Method Not Allowed"})
        return 200, http.answer(200, pages[request.path])

    def _tokenize(self, request: http.Request) -> tuple[int, bytes]:
        if request.method != "POST":
            return 405, http.answer(405, {"detail": "Method Not Allowed"})
        try:
            tokens = list(str(request.document().get("prompt", "")).encode())
        except ValueError as problem:
            return 400, http.error(400, str(problem))
        return 200, http.answer(200, {"count": len(tokens), "max_model_len": self.length, "tokens": tokens})

    def _refuse_new(self) -> None:
        """Raise for what is not taken at the moment."""
        kind = self.faults.kind
        if self.draining:  # vice: for the whole drain, while /health is 200
            raise Refused(500, _SHUT_DOWN)
        if self.engine.dead.is_set() or kind == "error_500":
            raise Refused(500, str(EngineDead()))
        limit = self.faults.queue if self.faults.queue is not None else self.args.max_num_queued_reqs
        if kind == "reject" or (limit is not None and self.engine.requests >= limit):
            self.metrics.rejected["max_num_queued_reqs"] += 1
            raise Refused(503, _FULL)

    async def _generate(
        self, request: http.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begin: float
    ) -> bool:
        """A completion, streamed or not, and every way in which it is refused or fails."""
        if request.method != "POST":
            self._send(writer, request, 405, http.answer(405, {"detail": "Method Not Allowed"}), begin)
            return True
        kind = self.faults.kind
        if kind == "garbage":
            self._send(writer, request, 200, http.answer(200, "\x00<garbage>"), begin)
            return True
        if kind == "reset":
            return self._reset(writer)
        try:
            ask = completions.understand(request.path, request.document(), self.names, self.length)
            self._refuse_new()
        except (Refused, ValueError, TypeError) as problem:
            status = problem.status if isinstance(problem, Refused) else 400
            self._send(writer, request, status, http.error(status, str(problem)), begin)
            return True
        if ask.stream:
            # Vice: the head of a stream leaves before the engine has taken the request, so what is refused now comes
            # inside HTTP 200.
            self._send(writer, request, 200, http.STREAM_HEAD, begin)
        await asyncio.sleep(self.admission)
        answer = _Stream(self, ask, request, writer) if ask.stream else _Plain(self, ask, request, writer)
        generation = answer.generation
        self._served[generation] = (reader, writer)
        try:
            self._refuse_new()
            self.engine.submit(generation)
            await generation.over
            if answer.cut:
                return self._reset(writer)
            status, content = 200, answer.end()
        except (Refused, EngineDead) as problem:
            status = problem.status if isinstance(problem, Refused) else 500
            content = answer.failed(status, str(problem))
        finally:
            del self._served[generation]
        if ask.stream:
            writer.write(content)
        else:
            self._send(writer, request, status, content, begin)
        await writer.drain()
        return True

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> bool:
        """End the connection with a reset instead of an end."""
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    def request_id(self, request: http.Request) -> str:
        """The client's, or one of ours."""
        return request.headers.get("x-request-id") or f"fake{next(self._numbers)}"

    async def look_for_clients(self) -> None:
        """End the generations of clients that have left, streamed or not."""
        while True:
            await asyncio.sleep(_LOOK_FOR_CLIENTS_SECONDS)
            for generation, (reader, writer) in list(self._served.items()):
                if reader.at_eof() or writer.is_closing():
                    self.engine.cancel(generation)

    async def drain(self) -> None:
        """SIGTERM: finish what runs within shutdown-timeout; with 0, cut it, or hang."""
        self.draining = True
        if self.args.shutdown_timeout == 0 and random.random() < _seconds("FAKE_VLLM_HANG_ON_TERM", "0"):
            # Vice: the engine is killed at once, clients get no error and not another byte.
            self.engine.process.signal(signal.SIGSTOP, both=True)
            await asyncio.sleep(2)
            if self.listening:
                self.listening.close()
            await asyncio.Event().wait()
        limit = time.monotonic() + self.args.shutdown_timeout
        while self.engine.requests and time.monotonic() < limit:
            await asyncio.sleep(0.02)
        self.engine.cut()
        # Vice: the teardown of the worker takes its time, inside the budget.
        teardown = _seconds("FAKE_VLLM_TEARDOWN_SECONDS", "0.1")
        if self.args.shutdown_timeout:
            teardown = min(teardown, max(0.1, limit - time.monotonic()))
        await asyncio.sleep(teardown)
        self.over.set()

    async def mourn(self) -> None:
        """Vice: after the engine's death the server ends by itself, with exit status 0."""
        await self.engine.dead.wait()
        who = "worker" if self.engine.worker_died else "engine"
        await asyncio.sleep(_CLOSES_AFTER[who])
        if self.listening:
            self.listening.close()
        await asyncio.sleep(_EXITS_AFTER[who] - _CLOSES_AFTER[who])
        self.over.set()


class _Plain:
    """An answer in one piece."""

    def __init__(self, server: Server, ask: Ask, request: http.Request, writer: asyncio.StreamWriter) -> None:
        self.server, self.writer, self.include_usage = server, writer, ask.include_usage
        args = server.args
        self.include_usage |= bool(args.enable_force_include_usage)
        details = bool(args.enable_prompt_tokens_details)
        self.texts = completions.Writer(ask, server.request_id(request), server.names[0], details)
        over = asyncio.get_running_loop().create_future()
        stop_at = max(1, ask.wanted // 2) if server.faults.kind == "stop_early" else ask.stop_at
        self.generation = Generation(ask.prompt_tokens, ask.wanted, stop_at, ask.priority, self.token, over)
        self.text: list[str] = []
        self.cut = False

    def token(self, generation: Generation, token: str) -> None:
        """Take a token."""
        self.text.append(token)
        if self.server.faults.kind == "truncate":
            self.cut = True
            self.server.engine.cancel(generation)

    def usage(self) -> dict[str, Any]:
        """What was used; one token less than given with the fault ``short_count``."""
        told = self.texts.usage(self.generation)
        if self.server.faults.kind == "short_count":
            told["completion_tokens"] -= 1
        return told

    def end(self) -> bytes:
        """The whole answer."""
        return http.answer(200, self.texts.whole("".join(self.text), self.generation.finish, self.usage()))

    def failed(self, status: int, message: str) -> bytes:
        """The error instead of an answer."""
        return http.error(status, message)


class _Stream(_Plain):
    """An answer token by token: written from the engine's step, without waking a task."""

    def token(self, generation: Generation, token: str) -> None:
        """Send a token, or so many of them as stream-interval joins."""
        if generation.made == 1 and self.texts.ask.chat:
            self.writer.write(self.texts.role())
        self.text.append(token)
        if generation.made == 1 or generation.finish or len(self.text) >= self.server.args.stream_interval:
            self.writer.write(self.texts.tokens("".join(self.text), generation.finish))
            self.text.clear()
        kind = self.server.faults.kind
        if kind == "sse_error":
            self.server.engine.fail(generation)
        elif kind == "truncate":
            self.cut = True
            self.server.engine.cancel(generation)

    def end(self) -> bytes:
        """What follows the last token."""
        return (self.texts.usage_event(self.usage()) if self.include_usage else b"") + http.STREAM_END

    def failed(self, status: int, message: str) -> bytes:
        """Vice: the head was 200 already, so the error is an event, and [DONE] follows."""
        return http.event(http.error_document(status, message)) + http.STREAM_END


async def _serve(args: Any, config: Any, process: EngineProcess) -> None:
    server = Server(args, config, process)
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(server.mourn()), asyncio.create_task(server.look_for_clients())]
    loop.add_signal_handler(signal.SIGTERM, lambda: tasks.append(asyncio.create_task(server.drain())))
    # Refused, not hung, until the "model" is loaded; SIGTERM is not honoured meanwhile.
    await asyncio.sleep(_seconds("FAKE_VLLM_START_SECONDS", "0.5"))
    if server.faults.kind == "dies_after_start":
        loop.call_later(_seconds("FAKE_VLLM_FAULT_SECONDS", "60"), process.signal, signal.SIGKILL)
        server.faults.kind = "none"
    server.listening = await asyncio.start_server(server.connection, args.host, args.port, backlog=2048, limit=1 << 24)
    print(f"FAKE vLLM serves {server.names} on {args.host}:{args.port}", flush=True)
    await server.over.wait()


def serve(args: Any, config: Any) -> int:
    """Run until SIGTERM or the death of the engine; the exit status is 0 for both."""
    if os.environ.get("FAKE_VLLM_FAULT") == "dies_at_start":
        print("RuntimeError: Engine core initialization failed. (fake)", flush=True)
        return 1
    process = start_engine()
    try:
        asyncio.run(_serve(args, config, process))
    except OSError as problem:
        print(f"{type(problem).__name__}: {problem}", flush=True)
        process.stop()
        return 1
    process.stop()
    os._exit(0)
