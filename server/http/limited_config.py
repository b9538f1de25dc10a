"""uvicorn's configuration for connections with limits, and with a certificate that is used once they are counted."""

import math
import ssl
from typing import Any

import uvicorn

from server.http.connections import Connections
from server.http.tls import Certificate
from server.http.unauthorized import Unauthorized


class LimitedConfig(uvicorn.Config):
    """uvicorn's configuration, with what its protocols shall know of each other."""

    def __init__(
        self,
        app: Any,
        client_connections: Connections,
        certificate: Certificate | None = None,
        unauthorized: Unauthorized | None = None,
        **options: Any,
    ) -> None:
        """`unauthorized` is that of a server with keys; `options` are uvicorn's, with the protocol of a new connection among them."""
        if certificate is not None:
            options |= {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key}
        super().__init__(app, timeout_keep_alive=math.ceil(client_connections.idle_seconds), **options)
        self.client_connections, self.certificate, self.unauthorized = client_connections, certificate, unauthorized
        self.context: ssl.SSLContext | None = None

    def load(self) -> None:
        """Load the app and the certificate; the listeners have none, as connections are counted before they speak TLS."""
        super().load()
        self.context, self.ssl = self.ssl, None
