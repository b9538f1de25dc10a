"""Limits of connections: how many there are, and how long each may take over a request's headers, over nothing, and over our answers.

Invariant: every connection that waits for its client has a moment at which it is ended, so none that does nothing, or does it slowly,
stays; one that waits for the server has none, as requests have deadlines of their own. Who is refused is told so in a problem where HTTP
still permits it. A request costs some assignments here: what is due is looked for once a second, over all connections, and none has timers
of its own.
"""

import asyncio
import math
from collections import Counter, deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.errors import KeyMissing, KeyUnknown
from server.http.problems import MEDIA_TYPE, Problem
from server.http.tls import Certificate
from server.http.unauthorized import Unauthorized
from server.metrics.registry import Metrics
from server.settings import Settings

LOOK_SECONDS = 1.0
# For the last bytes of an answer, after which the connection is closed.
LINGER_SECONDS = 2.0
# What a client that is refused still sends is read and dropped, or its system would drop the refusal; so much of so many clients.
LINGER_BYTES = 2**20
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


class Connections:
    """The connections of one server."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.header_bytes = 1024 * settings.max_header_kib
        self.header_seconds, self.idle_seconds, self.body_seconds = settings.header_seconds, settings.idle_seconds, settings.body_seconds
        self._most, self._most_per_client = settings.max_connections, settings.max_connections_per_client
        self._metrics = metrics
        self._open: set[LimitedProtocol] = set()
        self._leaving: set[LimitedProtocol] = set()
        self._clients: Counter[str] = Counter()
        self.too_large = Refusal(
            "header-size", 431, f"The headers are larger than the {settings.max_header_kib} KiB that this server reads."
        )
        self.too_slow = Refusal("header-time", 408, f"The headers took longer than {settings.header_seconds:g} s.")

    def enter(self, connection: "LimitedProtocol", client: str) -> Refusal | None:
        """Count a connection, or say why there is no room for it."""
        if len(self._open) >= self._most:
            return Refusal("connections", 503, f"The server has {self._most} connections, as many as it takes on; try again later.")
        if self._clients[client] >= self._most_per_client:
            return Refusal("client", 503, f"Your address has {self._most_per_client} connections to this server, as many as one may have.")
        self._open.add(connection)
        self._clients[client] += 1
        self._metrics.open_connections.set(len(self._open))
        return None

    def may_linger(self, connection: "LimitedProtocol") -> bool:
        """Whether a refused connection may stay until its client has read why; it is ended when it is due."""
        if connection in self._open:
            return True
        if len(self._leaving) >= MOST_REFUSED:
            return False
        self._leaving.add(connection)
        return True

    def leave(self, connection: "LimitedProtocol", client: str) -> None:
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
        self._metrics.refused_connections.labels(refusal.reason).inc()

    async def watch(self) -> None:
        """End what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            for connection in [each for each in self._open | self._leaving if each.due <= now or each.read_due <= now]:
                connection.end(now)


class LimitedConfig(uvicorn.Config):
    """uvicorn's configuration, with what its protocols shall know of each other."""

    def __init__(
        self,
        app: Any,
        connections: Connections,
        certificate: Certificate | None = None,
        unauthorized: Unauthorized | None = None,
        **options: Any,
    ) -> None:
        """`unauthorized` is that of a server with keys."""
        if certificate is not None:
            options |= {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key}
        super().__init__(app, http=LimitedProtocol, timeout_keep_alive=math.ceil(connections.idle_seconds), **options)
        self.limits, self.certificate, self.unauthorized = connections, certificate, unauthorized


class PipelineFlow(FlowControl):
    """The flow of a connection that reads no further while requests that it has read wait for their turn.

    Reason: uvicorn reads on after each answer, so what a client sends without reading answers would pile up here without end.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[tuple[RequestResponseCycle, ASGI3Application]]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        due: when it is ended if nothing happens, by the loop's clock.
        read_due: when it is ended if its client does not read what is kept for it.
    """

    config: LimitedConfig

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits, self._unauthorized = config.limits, config.unauthorized
        self._address = ""
        self._in_headers = self._in_body = self._refused = False
        self._header_bytes = self._dropped = 0
        self.due = self.read_due = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self.pipeline)
        self._address = self.client[0] if self.client else ""
        self.due = self.loop.time() + self._limits.header_seconds
        if refusal := self._limits.enter(self, self._address):
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.pause_reading()
            return
        begun = self._in_headers or self._in_body
        # Of the first piece it is not known where in it the headers began; it counts in full only where they end in it.
        self._header_bytes = self._header_bytes + len(data) if begun else len(data)
        super().data_received(data)
        # What comes after the headers and is no body is the frame of its chunks, and trailers, which are kept as headers are.
        if begun and (self._in_headers or self._in_body) and self._header_bytes > self._limits.header_bytes and not self._refused:
            self._refuse(self._limits.too_large)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self.due = self.loop.time() + self._limits.header_seconds

    def on_headers_complete(self) -> None:
        if self._header_bytes > self._limits.header_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._limits.header_bytes:
                self._refuse(self._limits.too_large)
                raise ValueError(self._limits.too_large.sentence)
        self._in_headers = False
        self._header_bytes = 0
        self.due = math.inf
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._header_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._header_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self.cycle.more_body = False
            self._await_client()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_client()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._unauthorized is not None and (error := self._unauthorized.judge(cycle.scope["path"], cycle.scope["headers"])) is not None:
            # At the app's own time: when all that is here of the request has been read, and not within the answer to the one before it.
            self.loop.call_soon(self._refuse_key, self._unauthorized, cycle, error)
        else:
            super()._start_asgi_task(cycle, app)

    def _refuse_key(self, unauthorized: Unauthorized, cycle: RequestResponseCycle, error: KeyMissing | KeyUnknown) -> None:
        """Answer a request that brings no key that is known."""
        if cycle.disconnected or self.transport.is_closing():
            return
        # A client that waits for leave to send its body need not send it now, so where the next request begins is not known; and one that
        # does not read what it is told is told no more.
        cycle.keep_alive &= not (cycle.waiting_for_100_continue or self.flow.write_paused)
        cycle.response_started = cycle.response_complete = True
        headers = self.server_state.default_headers
        self.transport.write(unauthorized.response(cycle.scope, error, headers, keep_alive=cycle.keep_alive))
        if cycle.keep_alive:
            cycle.on_response()
        else:
            self._linger()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.read_due = self.loop.time() + self._limits.body_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self.read_due = math.inf

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(MALFORMED)

    def end(self, now: float) -> None:
        """End the connection, which is due."""
        if self._refused or self.read_due <= now or self.transport.is_closing():
            self.transport.abort()
        elif self._answering():
            # The headers of the next request wait for the answer to this one.
            self.due = now + self._limits.header_seconds
        elif self._in_headers:
            self._refuse(self._limits.too_slow)
        else:
            self.transport.close()
            self.due = now + LINGER_SECONDS

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _may_tell(self) -> bool:
        """Whether a refusal would be understood, which it is not between the parts of another answer, nor after one to the same request."""
        if self._in_body:
            return not (self.cycle.response_started or self.pipeline)
        return not self._answering()

    def _await_client(self) -> None:
        """Set the moment by which the client must have gone on."""
        if self._answering():
            self.due = math.inf
        elif self._in_headers:
            self.due = self.loop.time() + self._limits.header_seconds
        else:
            # An answer can come before all of the body, which is then read and dropped, so that the client gets to reading the answer.
            reading = self.cycle is not None and self.cycle.more_body
            self.due = self.loop.time() + (self._limits.body_seconds if reading else self._limits.idle_seconds)

    def _refuse(self, refusal: Refusal) -> None:
        self._limits.refused(refusal)
        if not self._may_tell() or self.transport.is_closing():
            self._refused = True
            self.due = self.loop.time() + LINGER_SECONDS
            self.transport.close()
            return
        self.transport.write(refusal.response())
        if self._in_body:
            # The app's own answer, which the request can't get any more, must not follow.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._linger()

    def _linger(self) -> None:
        """Close the connection, once its client has read the last answer."""
        self._refused = True
        self.due = self.loop.time() + LINGER_SECONDS
        if self._limits.may_linger(self):
            # TLS has no half of a connection that could be closed.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.pipeline.clear()
            self.flow.resume_reading()
        else:
            self.transport.close()
