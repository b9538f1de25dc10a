"""One connection while it agrees on TLS.

Invariant: it is counted in `Connections` and is due all that time, so handshakes without end take no more places than requests without end.
"""

import asyncio
import math
import types
from collections.abc import Coroutine, Generator
from typing import Any

from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from server.http.limited_config import LimitedConfig
from server.http.protocol import LimitedProtocol


@types.coroutine
def _go_on(begun: Coroutine[Any, Any, asyncio.Transport | None], waited_for: Any) -> Generator[Any, Any, asyncio.Transport | None]:
    """Await a coroutine whose first part has been run, and waits for something."""
    yield waited_for
    return (yield from begun.__await__())


class HandshakeProtocol(asyncio.Protocol):
    """One connection until it speaks TLS, which it has as long for as for the headers of a request; then it is a `LimitedProtocol`.

    A client that there is no room for may still agree on TLS if it may linger, and is told then.
    """

    protocol: type[LimitedProtocol] = LimitedProtocol

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self._config, self._protocols = config, server_state.connections
        self._next = self.protocol(config, server_state, app_state, _loop)
        self._address = ""
        self._early: list[bytes] = []
        self.due = self.read_due = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        client = get_remote_addr(transport)
        self._address = client[0] if client else ""
        self.due = self._loop.time() + self._config.client_connections.header_seconds
        if (refusal := self._config.client_connections.enter(self, self._address)) and not self._config.client_connections.may_linger(self):
            self._config.client_connections.refused(refusal)
            transport.abort()
            return
        self._protocols.add(self)  # type: ignore[arg-type]
        assert self._config.context is not None
        # Its first part must be done at once: what the client sends before that would come here.
        begun = self._loop.start_tls(transport, self, self._config.context, server_side=True)
        self._shaking = self._loop.create_task(self._shake(begun, begun.send(None)), name="handshake")

    def data_received(self, data: bytes) -> None:
        # By TLS already, and before this process has heard that it is agreed on.
        self._early.append(data)

    def shutdown(self) -> None:
        """Leave, as the server ends."""
        self._transport.abort()

    def end(self, now: float) -> None:
        """End the connection, which is due."""
        self._transport.abort()

    async def _shake(self, begun: Coroutine[Any, Any, asyncio.Transport | None], waited_for: Any) -> None:
        try:
            encrypted = await _go_on(begun, waited_for)
        except OSError:
            # Whatever it was, the client has gone, or speaks no TLS that this server does.
            encrypted = None
        finally:
            self._protocols.discard(self)
            self._config.client_connections.leave(self, self._address)
        if encrypted is None or encrypted.is_closing():
            self._transport.abort()
            return
        encrypted.set_protocol(self._next)
        self._next.connection_made(encrypted)
        for data in self._early:
            self._next.data_received(data)
