"""FAKE vLLM: the API server with its measured vices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import time
from typing import Any

from vllm import __version__
from vllm.fake import http
from vllm.fake.engine import Engine, EngineDead
from vllm.fake.metrics import Metrics

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_AFTER_ENGINE_DEATH_SECONDS = 3  # measured; the exit status is 0
_GENERATE = ("/v1/completions", "/v1/chat/completions")


class Server:
    """State of one server: faults, drain, counters."""

    def __init__(self, args: Any, config: Any) -> None:
        self.args = args
        self.names = args.served_model_name or [args.model]
        self.length = config.model_config.max_model_len
        kv_tokens = max(1, (args.kv_cache_memory_bytes or 1 << 26) // 512)
        self.metrics = Metrics(self.names[0], kv_tokens)
        self.engine = Engine(str(pathlib.Path(args.model).resolve()), args.max_num_seqs, self.metrics)
        self.keep_alive = float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5"))
        self.keys = set(args.api_key or filter(None, [os.environ.get("VLLM_API_KEY")]))
        self.fault: dict[str, Any] = {"kind": os.environ.get("FAKE_VLLM_FAULT", "none")}
        self.draining = False
        self.over = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it ends."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await http.read(reader, writer, self.keep_alive):
                if not await self.handle(request, writer):
                    break
        writer.close()

    async def handle(self, request: http.Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False closes the connection."""
        if request.path == "/fake/fault" and request.peer in ("127.0.0.1", "::1", self.args.host):
            self.fault = request.json()
            self.engine.slowness = float(self.fault.get("factor", 1)) if self.fault["kind"] == "slow" else 1.0
            return await self.send(writer, request, http.answer(200, self.fault), 200)
        kind = self.fault["kind"]
        if kind == "hang_after_accept":
            await self.over.wait()
            return False
        if self.keys and request.path.startswith(_GUARDED) and not self.authorized(request):
            return await self.send(writer, request, http.answer(401, {"error": "Unauthorized"}), 401)
        if request.path in _GENERATE:
            return await self.generate(request, writer)
        return await self.look(request, writer)

    def authorized(self, request: http.Request) -> bool:
        """Whether one of the keys was sent."""
        return request.headers.get("authorization", "").removeprefix("Bearer ") in self.keys

    async def send(self, writer: asyncio.StreamWriter, request: http.Request, content: bytes, status: int) -> bool:
        """Write a whole answer and count it."""
        if request.path not in ("/health", "/metrics", "/load", "/ping", "/version"):
            self.metrics.http[request.path, request.method, f"{status // 100}xx"] += 1
        writer.write(content)
        await writer.drain()
        return request.headers.get("connection", "").lower() != "close"

    async def look(self, request: http.Request, writer: asyncio.StreamWriter) -> bool:
        """Everything that asks no engine, and therefore answers while the engine is frozen."""
        running, waiting = len(self.engine.running), len(self.engine.waiting)
        pages: dict[str, Any] = {
            "/health": "",
            "/ping": "",
            "/version": {"version": __version__},
            "/load": {"server_load": running + waiting if self.args.enable_server_load_tracking else 0},
            "/v1/models": {
                "object": "list",
                "data": [
                    {"id": name, "object": "model", "root": self.args.model, "max_model_len": self.length}
                    for name in self.names
                ],
            },
            "/tokenize": {"count": 1, "tokens": [0]},
        }
        if request.path == "/metrics":
            page = self.metrics.text(running, waiting, self.engine.kv_used)
            return await self.send(writer, request, http.answer(200, page, "text/plain; version=0.0.4"), 200)
        if request.path not in pages:
            return await self.send(writer, request, http.answer(404, {"detail": "Not Found"}), 404)
        return await self.send(writer, request, http.answer(200, pages[request.path]), 200)

    async def generate(self, request: http.Request, writer: asyncio.StreamWriter) -> bool:
        """A completion, streamed or not, and every way in which it is refused or fails."""
        try:
            body = request.json()
        except ValueError:
            return await self.send(writer, request, http.error(400, "JSON decode error"), 400)
        if body.get("model") not in self.names:
            text = f"The model `{body.get('model')}` does not exist."
            return await self.send(writer, request, http.error(404, text), 404)
        chat = request.path.endswith("chat/completions")
        prompt = "".join(str(m.get("content")) for m in body.get("messages", [])) if chat else str(body.get("prompt"))
        wanted = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        if len(prompt) + wanted > self.length:
            text = f"This model's maximum context length is {self.length} tokens."
            return await self.send(writer, request, http.error(400, text), 400)
        kind = self.fault["kind"]
        stream = bool(body.get("stream"))
        if kind == "garbage":
            return await self.send(writer, request, http.answer(200, "\x00<garbage>"), 200)
        # Vice: during the whole drain new requests get 500, while /health stays 200.
        if self.draining or self.engine.dead.is_set() or kind == "error_500":
            words = (
                "cannot schedule new futures after shutdown" if self.draining else "EngineCore encountered an issue."
            )
            return await self.send(writer, request, http.error(500, words), 500)
        limit = self.args.max_num_queued_reqs
        full = limit is not None and len(self.engine.running) + len(self.engine.waiting) >= limit
        if full or kind == "reject":
            self.metrics.rejections += 1
            text = "The server is overloaded: the request queue is full."
            if stream and kind != "reject" and time.monotonic() - self.engine.waiting[-1].arrived < 0.005:
                # Vice: in a burst the head of a stream is out before the queue is found full.
                refused = {"error": {"message": text, "type": "Service Unavailable", "code": 503}}
                content = http.STREAM_HEAD + http.event(refused) + http.event("[DONE]") + http.STREAM_END
                return await self.send(writer, request, content, 200)
            return await self.send(writer, request, http.error(503, text), 503)
        generation = self.engine.submit(max(1, len(prompt)), wanted)
        try:
            if stream:
                return await self.stream(request, writer, body, generation, chat)
            return await self.plain(request, writer, generation, chat)
        except EngineDead as problem:
            return await self.send(writer, request, http.error(500, str(problem)), 500)
        finally:
            self.engine.cancel(generation)

    def usage(self, generation: Any) -> dict[str, int]:
        """What was used."""
        total = generation.prompt_tokens + generation.made
        return {"prompt_tokens": generation.prompt_tokens, "completion_tokens": generation.made, "total_tokens": total}

    async def tokens(self, generation: Any, writer: asyncio.StreamWriter) -> Any:
        """Yield the tokens; a client that leaves ends the generation."""
        while True:
            token = await generation.tokens.get()
            if writer.is_closing():
                raise ConnectionResetError
            if token is None:
                return
            if isinstance(token, Exception):
                raise token
            yield "!" if self.fault["kind"] == "wrong_answers" else token

    async def plain(self, request: http.Request, writer: asyncio.StreamWriter, generation: Any, chat: bool) -> bool:
        """One JSON document at the end."""
        text = "".join([token async for token in self.tokens(generation, writer)])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        document = {"id": "fake", "model": self.names[0], "choices": [choice], "usage": self.usage(generation)}
        return await self.send(writer, request, http.answer(200, document), 200)

    async def stream(
        self, request: http.Request, writer: asyncio.StreamWriter, body: dict[str, Any], generation: Any, chat: bool
    ) -> bool:
        """Server-sent events; what fails after the head is an event inside HTTP 200."""
        self.metrics.http[request.path, request.method, "2xx"] += 1
        writer.write(http.STREAM_HEAD)
        try:
            async for token in self.tokens(generation, writer):
                if self.fault["kind"] == "sse_error":
                    raise EngineDead("EngineCore encountered an issue.")
                last = generation.made >= generation.wanted and generation.tokens.qsize() <= 1
                choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if last else None}
                choice |= {"delta": {"content": token}} if chat else {"text": token}
                writer.write(http.event({"id": "fake", "model": self.names[0], "choices": [choice]}))
                await writer.drain()
            if (body.get("stream_options") or {}).get("include_usage"):
                writer.write(http.event({"id": "fake", "choices": [], "usage": self.usage(generation)}))
        except EngineDead as problem:
            writer.write(http.event({"error": {"message": str(problem), "type": "InternalServerError", "code": 500}}))
        writer.write(http.event("[DONE]") + http.STREAM_END)
        await writer.drain()
        return request.headers.get("connection", "").lower() != "close"

    async def drain(self) -> None:
        """SIGTERM: finish what runs within shutdown-timeout; with 0, cut it, or hang."""
        self.draining = True
        if self.args.shutdown_timeout == 0:
            if os.environ.get("FAKE_VLLM_HANG_ON_TERM") == "1":
                self.fault = {"kind": "hang_after_accept"}
                await asyncio.Event().wait()
            self.engine.cut()
        limit = time.monotonic() + self.args.shutdown_timeout
        while (self.engine.running or self.engine.waiting) and time.monotonic() < limit:
            await asyncio.sleep(0.02)
        self.engine.cut()
        await asyncio.sleep(0.1)  # the last events leave
        self.over.set()

    async def mourn(self) -> None:
        """Vice: after the engine's death the server ends by itself, with exit status 0."""
        await self.engine.dead.wait()
        await asyncio.sleep(_AFTER_ENGINE_DEATH_SECONDS)
        self.over.set()


async def _serve(args: Any, config: Any) -> None:
    server = Server(args, config)
    server.engine.attach()
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(server.mourn())]
    loop.add_signal_handler(signal.SIGTERM, lambda: tasks.append(asyncio.create_task(server.drain())))
    # Refused, not hung, until the "model" is loaded.
    await asyncio.sleep(float(os.environ.get("FAKE_VLLM_START_SECONDS", "0.5")))
    if server.fault["kind"] == "dies_after_start":
        seconds = float(os.environ.get("FAKE_VLLM_FAULT_SECONDS", "60"))
        loop.call_later(seconds, server.engine._die)
    await asyncio.start_server(server.connection, args.host, args.port, backlog=2048, limit=1 << 24)
    print(f"FAKE vLLM serves {server.names} on {args.host}:{args.port}", flush=True)
    await server.over.wait()


def serve(args: Any, config: Any) -> int:
    """Run until SIGTERM or the death of the engine; the exit status is 0 for both."""
    if os.environ.get("FAKE_VLLM_FAULT") == "dies_at_start":
        print("RuntimeError: Engine core initialization failed. (fake)", flush=True)
        return 1
    asyncio.run(_serve(args, config))
    os._exit(0)  # the engine processes end with their pipes
