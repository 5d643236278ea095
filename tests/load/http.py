"""HTTP/1.1 over asyncio, as much of it as a load client needs: kept connections, TLS, bodies in pieces."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LINE_LIMIT = 1 << 20


class Broken(Exception):
    """The connection ended before the answer did; ``stage`` says where: connect, tls, first_byte or body."""

    def __init__(self, stage: str, reason: str, received: int = 0) -> None:
        super().__init__(reason)
        self.stage, self.received = stage, received


@dataclass
class Answer:
    """Status and headers; the body is read in pieces."""

    status: int
    headers: dict[str, str]


@dataclass
class Connection:
    """One connection to one server; ``used`` counts the requests that it has carried."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: int = 0
    open: bool = True

    def close(self) -> None:
        self.open = False
        self.writer.close()


@dataclass
class Server:
    """A base URL and its idle connections."""

    url: str
    context: ssl.SSLContext | None = None
    keep_alive: bool = True
    connect_seconds: float = 10
    idle: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.host = parts.hostname or ""
        self.tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.tls else 80)
        self.prefix = parts.path.rstrip("/")

    async def connection(self) -> Connection:
        while self.idle:
            kept = self.idle.pop()
            # What the server has closed meanwhile, no client would use again.
            if kept.open and not kept.reader.at_eof():
                return kept
            kept.close()
        try:
            opening = asyncio.open_connection(
                self.host, self.port, ssl=self.context if self.tls else None, limit=LINE_LIMIT
            )
            reader, writer = await asyncio.wait_for(opening, self.connect_seconds)
        except ssl.SSLError as error:
            raise Broken("tls", str(error)) from error
        except (OSError, asyncio.TimeoutError) as error:
            raise Broken("connect", str(error) or "timed out") from error
        return Connection(reader, writer)

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[Connection, Answer]:
        """Send a request and read the head of the answer."""
        connection = await self.connection()
        lines = [f"POST {self.prefix}{path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self.keep_alive:
            lines.append("Connection: close")
        try:
            connection.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await connection.writer.drain()
            head = await connection.reader.readuntil(b"\r\n\r\n")
        except (OSError, EOFError) as error:
            connection.close()
            begun = len(getattr(error, "partial", b""))
            stage = "body" if begun else "first_byte"
            raise Broken(stage, f"{type(error).__name__}, {begun} bytes", begun) from error
        except BaseException:  # cancelled by a time limit, too: nobody may use this connection again
            connection.close()
            raise
        connection.used += 1
        status, *rows = head.decode("latin-1").split("\r\n")
        pairs = (row.split(":", 1) for row in rows if ":" in row)
        return connection, Answer(int(status.split()[1]), {name.lower(): value.strip() for name, value in pairs})

    async def body(self, connection: Connection, answer: Answer) -> AsyncIterator[bytes]:
        """Yield the body in the pieces in which it arrives; hand the connection back when it is whole."""
        try:
            if answer.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int(await connection.reader.readline(), 16):
                    yield await connection.reader.readexactly(size)
                    await connection.reader.readexactly(2)
                await connection.reader.readline()
            elif "content-length" in answer.headers:
                yield await connection.reader.readexactly(int(answer.headers["content-length"]))
            else:
                answer.headers["connection"] = "close"
                while piece := await connection.reader.read(65536):
                    yield piece
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            raise Broken("body", f"{type(error).__name__}: {error}") from error
        except BaseException:
            connection.close()
            raise
        if self.keep_alive and answer.headers.get("connection", "").lower() != "close":
            self.idle.append(connection)
        else:
            connection.close()
