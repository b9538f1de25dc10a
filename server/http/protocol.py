"""One connection, from the moment at which it can be read: its requests, its end.

Invariant: it is counted in `Connections` all the time, and is due whenever its client is waited for.
"""

import asyncio
import math
from collections import deque
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.errors import KeyMissing, KeyUnknown
from server.http.answering import CALLER, Caller
from server.http.connections import MALFORMED, Refusal
from server.http.limited_config import LimitedConfig
from server.http.unauthorized import Unauthorized

# For the last bytes of an answer, after which the connection is closed.
LINGER_SECONDS = 2.0
# What a client that is refused still sends is read and dropped, or its system would drop the refusal; so much of each.
LINGER_BYTES = 2**20


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
    """One connection; see `Connection`."""

    config: LimitedConfig

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._caller = Caller()
        super().__init__(config, server_state, app_state | {CALLER: self._caller}, _loop)
        self._client_connections, self._unauthorized = config.client_connections, config.unauthorized
        self._address = ""
        self._in_headers = self._in_body = self._refused = False
        self._header_bytes = self._dropped = 0
        self.due = self.read_due = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self.pipeline)
        self._address = self.client[0] if self.client else ""
        self.due = self.loop.time() + self._client_connections.header_seconds
        if refusal := self._client_connections.enter(self, self._address):
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_connections.leave(self, self._address)
        super().connection_lost(exc)
        self._caller.leave()

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
        if (
            begun
            and (self._in_headers or self._in_body)
            and self._header_bytes > self._client_connections.header_bytes
            and not self._refused
        ):
            self._refuse(self._client_connections.too_large)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self.due = self.loop.time() + self._client_connections.header_seconds

    def on_headers_complete(self) -> None:
        if self._header_bytes > self._client_connections.header_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._client_connections.header_bytes:
                self._refuse(self._client_connections.too_large)
                raise ValueError(self._client_connections.too_large.sentence)
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
        # A client that waits for leave to send its body need not send it now, so where the next request begins is not known; and one that
        # does not read what it is told is told no more.
        cycle.keep_alive &= not (cycle.waiting_for_100_continue or self.flow.write_paused)
        # Who has gone is counted all the same, as the app does it.
        response = unauthorized.response(cycle.scope, error, self.server_state.default_headers, keep_alive=cycle.keep_alive)
        if cycle.disconnected or self.transport.is_closing():
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(response)
        if cycle.keep_alive:
            cycle.on_response()
        elif cycle.more_body or self.pipeline:
            self._linger()
        else:
            self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.read_due = self.loop.time() + self._client_connections.body_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self.read_due = math.inf

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(MALFORMED)

    def end(self, now: float) -> None:
        """End the connection, which is due."""
        if self.read_due <= now or self.transport.is_closing():
            self.transport.abort()
        elif self._refused:
            # Its client has had the time to read why. By TLS the end is said, or it would look like an attacker's.
            self._close()
        elif self._answering():
            # The headers of the next request wait for the answer to this one.
            self.due = now + self._client_connections.header_seconds
        elif self._in_headers:
            self._refuse(self._client_connections.too_slow)
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
            self.due = self.loop.time() + self._client_connections.header_seconds
        else:
            # An answer can come before all of the body, which is then read and dropped, so that the client gets to reading the answer.
            reading = self.cycle is not None and self.cycle.more_body
            self.due = self.loop.time() + (self._client_connections.body_seconds if reading else self._client_connections.idle_seconds)

    def _refuse(self, refusal: Refusal) -> None:
        self._client_connections.refused(refusal)
        if not self._may_tell() or self.transport.is_closing():
            self._close()
            return
        self.transport.write(refusal.response())
        if self._in_body:
            # The app's own answer, which the request can't get any more, must not follow.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._linger()

    def _close(self) -> None:
        """Close the connection, behind what has been written."""
        self._refused = True
        self.due = self.loop.time() + LINGER_SECONDS
        self.transport.close()

    def _linger(self) -> None:
        """Close the connection, once its client has sent all and read the last answer."""
        if self._client_connections.may_linger(self):
            self._refused = True
            self.due = self.loop.time() + LINGER_SECONDS
            # TLS has no half of a connection that could be closed.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.pipeline.clear()
            self.flow.resume_reading()
        else:
            self._close()
