"""`Certificate`: what the server shows for itself when it speaks HTTPS, read anew when its files are replaced.

Invariant: connections are made with the old chain and key or with the new ones, never with a chain and the key of another. What is new is
tried first on a context of its own, because a context that refuses a key keeps the chain that came before it.
"""

import asyncio
import logging
import socket
import ssl
from pathlib import Path

import uvicorn

from server.metrics.outages import OutageLog
from server.ticks import tick

logger = logging.getLogger(__name__)

LOOK_TICKS = 10


class Certificate:
    """A certificate chain and its key, both PEM."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises ValueError: they can't be used."""
        self.chain, self.key = chain, key
        self._outage = OutageLog("the new certificate can't be used, and connections are made with the old one")
        self._data = self._read()
        self._try()

    async def watch(self, context: ssl.SSLContext) -> None:
        """Have a context follow the files, for ever; connections that are open keep what they have."""
        while True:
            await tick(LOOK_TICKS)
            await self.look(context)

    async def look(self, context: ssl.SSLContext) -> None:
        """Take over what the files have now."""
        try:
            data = await asyncio.to_thread(self._read)
            if data == self._data:
                # What was there before may have been put back.
                self._outage.answered()
                return
            self._try()
            # Files that were replaced again since are tried again in the next second.
            self._load(context)
        except ValueError as error:
            self._outage.failed(str(error))
            return
        self._data = data
        self._outage.answered()
        logger.info("connections are made with the new certificate of %s", self.chain)

    def _read(self) -> tuple[bytes, bytes]:
        try:
            return self.chain.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise ValueError(f"The certificate of {self.chain} or its key {self.key} can't be read: {error.strerror}.") from error

    def _try(self) -> None:
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.chain, self.key, "")
        except OSError as error:
            raise ValueError(f"{self.chain} is no certificate chain (PEM), or {self.key} is not its key, or has a password.") from error


def certificate_of(chain: Path | None, key: Path | None) -> Certificate | None:
    """The certificate of the options, None without them.

    Raises:
        ValueError: one is given without the other, or they can't be used.
    """
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise ValueError("HTTPS needs a certificate and its key: give --tls-cert and --tls-key.")
    return Certificate(chain, key)


class FollowingServer(uvicorn.Server):
    """uvicorn with a certificate that follows its files, on the ticks of all else that is looked at."""

    def __init__(self, config: uvicorn.Config, certificate: Certificate | None) -> None:
        """`config` has the certificate's files; without one the server speaks plain HTTP."""
        super().__init__(config)
        self._certificate = certificate

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of new connections; None before the configuration is loaded."""
        return self.config.ssl

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            await tick()
            counter += 1

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.load()
        context = self.context
        if self._certificate is None or context is None:
            await super().serve(sockets)
            return
        watch = asyncio.create_task(self._certificate.watch(context), name="certificate")
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()
