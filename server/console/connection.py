"""A connection to a console: with the limits of a connection to the server, which hold on when it becomes a WebSocket.

Invariant: it has one place in `Connections` from its beginning to its end. A WebSocket that is open may be silent for as long as its pings
are answered, which uvicorn sees to; it is ended when its client does not read.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from server.http.handshake import HandshakeProtocol
from server.http.limited_config import LimitedConfig
from server.http.protocol import LimitedProtocol


@dataclass(frozen=True)
class ConsoleLimits:
    """The limits of a console's connections.

    A page holds one WebSocket, and asks the server by connections of its own: all of a console's must stay below what the server takes of
    one address, or they would keep others of this machine out.
    """

    max_connections: int = 512
    max_connections_per_client: int = 256
    max_header_kib: int = 32
    header_seconds: float = 10
    body_seconds: float = 30
    idle_seconds: float = 75


class ConsoleProtocol(LimitedProtocol):
    """One connection while it speaks HTTP."""

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._should_upgrade():
            # There is no answer to wait for: what follows is no HTTP.
            self._in_body = False
            self._header_bytes = 0
            return
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        # Its place is for the WebSocket, which takes it at once.
        self._client_connections.leave(self, self._address)
        super().handle_websocket_upgrade()


class ConsoleHandshake(HandshakeProtocol):
    """One connection while it agrees on TLS."""

    protocol = ConsoleProtocol


class CountedWebSocket(WebSocketsSansIOProtocol):
    """One connection as a WebSocket; see `Connection`."""

    config: LimitedConfig
    due = read_due = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._address = self.client[0] if self.client else ""
        self.config.client_connections.enter(self, self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.client_connections.leave(self, self._address)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.read_due = self.loop.time() + self.config.client_connections.body_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self.read_due = math.inf

    def end(self, now: float) -> None:
        """End the connection, which is due."""
        self.transport.abort()
