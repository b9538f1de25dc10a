"""`LimitedServer`: uvicorn whose connections have limits and whose certificate follows its files."""

import asyncio
import resource
import socket
import ssl

from server.http.limited_config import LimitedConfig
from server.http.tls import FollowingServer

# Files and sockets of the process beside those of its clients.
OWN_FILES = 256


class LimitedServer(FollowingServer):
    """uvicorn that ends connections which are due."""

    def __init__(self, config: LimitedConfig) -> None:
        super().__init__(config, config.certificate)
        self._limited = config

    @property
    def context(self) -> ssl.SSLContext | None:
        return self._limited.context

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        watch = asyncio.get_running_loop().create_task(self._limited.client_connections.watch(), name="connections")
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()


def allow_files(connections: int) -> None:
    """Let this process open as many files as it takes connections, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OWN_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
