"""Limits of connections: how many there are, and how long each may take over a request's headers, over nothing, and over our answers.

Invariant: every connection that waits for its client has a moment at which it is ended, so no connection stays that does nothing, or does
it slowly. A connection that waits for the server has no such moment, because requests have deadlines of their own. Where HTTP still permits
it, a client that is refused is told so in a problem. A request costs some assignments here: what is due is looked for once a second, over
all connections, and no connection has timers of its own.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import orjson

from server.http.problems import MEDIA_TYPE, Problem
from server.metrics.registry import Metrics
from server.ticks import tick

_LOOK_TICKS = 10
# Refused clients that are waited for until they have read why.
MOST_REFUSED = 64


@dataclass(frozen=True)
class Refusal:
    """An answer to what is no complete request; `reason` is its label in metrics."""

    reason: str
    status: int
    sentence: str

    def response(self) -> bytes:
        """The whole response, after which the connection is closed."""
        problem = Problem(self.status, self.sentence)
        body = orjson.dumps(problem.members())
        retry = "retry-after: 1\r\n" if self.status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-content-type-options: nosniff\r\n{retry}connection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


MALFORMED = Refusal("malformed", 400, "This is no request that HTTP/1.1 knows.")


class Connection(Protocol):
    """A connection, as far as its limits are concerned.

    Attributes:
        due: when it is ended if nothing happens, by the loop's clock.
        read_due: when it is ended if its client does not read what is kept for it.
    """

    due: float
    read_due: float

    def end(self, now: float) -> None:
        """End the connection, which is due."""


class Limits(Protocol):
    """The limits of connections, as `Settings` has and explains them."""

    @property
    def max_connections(self) -> int:
        """Connections at once."""

    @property
    def max_connections_per_client(self) -> int:
        """Connections at once of one address."""

    @property
    def max_header_kib(self) -> int:
        """Headers of a request."""

    @property
    def header_seconds(self) -> float:
        """Longest time for them."""

    @property
    def body_seconds(self) -> float:
        """Longest time for a body, and for what is not read."""

    @property
    def idle_seconds(self) -> float:
        """How long a connection without a request is kept."""


class Connections:
    """The connections of one server."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.header_bytes = 1024 * limits.max_header_kib
        self.header_seconds, self.idle_seconds, self.body_seconds = limits.header_seconds, limits.idle_seconds, limits.body_seconds
        self._most, self._most_per_client = limits.max_connections, limits.max_connections_per_client
        self._metrics = metrics
        self._open: set[Connection] = set()
        self._leaving: set[Connection] = set()
        self._clients: Counter[str] = Counter()
        self.too_large = Refusal("header-size", 431, f"The headers are larger than the {limits.max_header_kib} KiB that this server reads.")
        self.too_slow = Refusal("header-time", 408, f"The headers took longer than {limits.header_seconds:g} s.")

    def enter(self, connection: Connection, client: str) -> Refusal | None:
        """Count a connection, or say why there is no room for it."""
        if len(self._open) >= self._most:
            return Refusal("connections", 503, f"The server has {self._most} connections, as many as it takes on; try again later.")
        if self._clients[client] >= self._most_per_client:
            return Refusal("client", 503, f"Your address has {self._most_per_client} connections to this server, as many as one may have.")
        self._open.add(connection)
        self._clients[client] += 1
        self._metrics.open_connections.set(len(self._open))
        return None

    def may_linger(self, connection: Connection) -> bool:
        """Whether a refused connection may stay until its client has read why; it is ended when it is due."""
        if connection in self._open:
            return True
        if len(self._leaving) >= MOST_REFUSED:
            return False
        self._leaving.add(connection)
        return True

    def leave(self, connection: Connection, client: str) -> None:
        """Count a connection no more, if it was."""
        self._leaving.discard(connection)
        if connection in self._open:
            self._open.remove(connection)
            self._clients[client] -= 1
            # Addresses come and go; those without a connection must not be kept.
            if not self._clients[client]:
                del self._clients[client]
            self._metrics.open_connections.set(len(self._open))

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal."""
        self._metrics.refused_connections.inc(1, refusal.reason)

    async def watch(self) -> None:
        """End what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await tick(_LOOK_TICKS)
            now = loop.time()
            for connection in [each for each in self._open | self._leaving if each.due <= now or each.read_due <= now]:
                connection.end(now)
