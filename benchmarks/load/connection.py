"""HTTP/1.1 connections for a generator that must not be the bottleneck.

Invariant: a connection carries one request at a time and is closed when its request is given up, so a server sees a client hang up, and no
answer is ever taken for another's. Not httpx: it takes eight times the processor time of this (0.5 ms a request), which the server on
the same machine would lack.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes


class LostConnectionError(ConnectionError):
    """The server closed the connection before the answer was complete.

    Attributes:
        silent: whether nothing of an answer had come.
    """

    def __init__(self, silent: bool) -> None:
        super().__init__("The server closed the connection.")
        self.silent = silent


class Connection(asyncio.Protocol):
    """One connection; `ask` sends a request and waits for its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Reply] | None = None
        self._body: list[bytes] = []
        self._silent = True
        self.reusable = True

    async def ask(self, request: bytes) -> Reply:
        """The answer to a request.

        Raises:
            LostConnectionError: the connection ended first.
        """
        if self._transport is None or self._transport.is_closing():
            raise LostConnectionError(silent=True)
        self._parser = httptools.HttpResponseParser(self)
        self._body, self._silent = [], True
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hangs up."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's class, only of its kind.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._silent = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LostConnectionError(self._silent))

    # the parser's side
    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.reusable = self.reusable and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Reply(self._parser.get_status_code(), b"".join(self._body)))


@dataclass
class ConnectionPool:
    """Connections to one server, opened as they are needed.

    Attributes:
        url: `http://host:port` or `https://…`, with a path that goes before all others.
    """

    url: str
    _idle: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._fixed = f"HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nContent-Type: application/json\r\n"

    async def ask(self, method: str, path: str, body: bytes = b"", user: str | None = None) -> Reply:
        """The answer to a request; giving up the wait hangs up.

        Args:
            user: whose request it is, for a proxy that sends each user to a replica of their own.

        Raises:
            OSError: the server can't be reached, or closed the connection.
        """
        whose = "" if user is None else f"X-User-Id: {user}\r\n"
        request = f"{method} {self._base}{path} {self._fixed}{whose}Content-Length: {len(body)}\r\n\r\n".encode() + body
        if self._idle:
            # A server may close an idle connection at any time; that costs the request one more try, as in any client.
            try:
                return await self._ask(self._idle.pop(), request)
            except LostConnectionError as error:
                if not error.silent:
                    raise
        return await self._ask(await self._open(), request)

    async def close(self) -> None:
        """Closes what is idle."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection

    async def _ask(self, connection: Connection, request: bytes) -> Reply:
        try:
            reply = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
        return reply
