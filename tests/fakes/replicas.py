"""FAKE replicas by the hundred: a port each in one process, with a real ``/metrics`` page of vLLM (or of its fake).

``python replicas.py --page FILE --address A --port 20000 --count 200``. They take connections, serve the page with a
step counter that moves, and answer completions at once; nothing else is true of them. For what asks many replicas.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import re
import sys
import time

_STEPS = re.compile(r"^(vllm:iteration_tokens_total_count\{[^}]*\}) .*$", re.MULTILINE)
_RUNNING = re.compile(r"^(vllm:num_requests_running\{[^}]*\}) .*$", re.MULTILINE)
_STEPS_A_SECOND, _BUSY = 50, 8


def split(page: str) -> tuple[str, str]:
    """Return the page before and after the value of the step counter; ValueError without one."""
    found = _STEPS.search(page)
    if found is None:
        raise ValueError("the page has no row vllm:iteration_tokens_total_count")
    busy = _RUNNING.sub(rf"\1 {_BUSY}.0", page)
    begin = _STEPS.search(busy)
    assert begin is not None
    return busy[: begin.end(1)] + " ", busy[begin.end() :]


def _answer(content: str, kind: str = "application/json") -> bytes:
    body = content.encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _completion(model: str) -> bytes:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choice = {"index": 0, "text": "a", "finish_reason": "length"}
    return _answer(
        json.dumps({"id": "x", "object": "text_completion", "model": model, "choices": [choice], "usage": usage})
    )


async def serve(page: str, address: str, port: int, count: int, model: str = "tiny") -> list[asyncio.AbstractServer]:
    """Listen on ``count`` ports from this one and return the servers."""
    before, after = split(page)
    completion, card = _completion(model), {"id": model, "root": f"/models/{model}/a", "max_model_len": 2048}
    pages = {
        "/v1/models": _answer(json.dumps({"object": "list", "data": [card]})),
        "/version": _answer(json.dumps({"version": "0.32.0+fake"})),
    }

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?i)^content-length: *(\d+)", head, re.MULTILINE)
                await reader.readexactly(int(length.group(1)) if length else 0)
                path = head.split(" ", 2)[1]
                if path == "/metrics":
                    steps = int(time.monotonic() * _STEPS_A_SECOND)
                    writer.write(_answer(f"{before}{steps}.0{after}", "text/plain; version=0.0.4"))
                elif path in pages:
                    writer.write(pages[path])
                else:
                    writer.write(completion if path.startswith("/v1") else _answer(""))
                await writer.drain()
                if re.search(r"(?i)^connection: *close", head, re.MULTILINE):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return [await asyncio.start_server(connection, address, port + number) for number in range(count)]


async def _run(arguments: argparse.Namespace) -> None:
    page = pathlib.Path(arguments.page).read_text()
    await serve(page, arguments.address, arguments.port, arguments.count, arguments.model)
    print(f"FAKE replicas on {arguments.address}:{arguments.port} and {arguments.count - 1} ports more", flush=True)
    await asyncio.Event().wait()


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", required=True, help="text of a /metrics page")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=20000)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--model", default="tiny")
    asyncio.run(_run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
