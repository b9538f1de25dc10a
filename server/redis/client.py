"""redis-py clients for each topology: one server, Sentinel, Cluster.

Invariant: a client never sends a command twice, because a write whose answer was lost may have been stored. It has no timeouts of its own
for commands, because `server.redis.access` limits each operation as a whole. A connection is made with what files hold by then, because a
pool that lives as long as the server outlives passwords and certificates.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError

from server.redis.url import Login, RedisUrl, Topology

RedisClient = Redis | RedisCluster
# A hanging Sentinel must leave time to ask another.
_SENTINEL_SHARE = 3


def _stamp(path: str) -> tuple[int, ...]:
    """What differs once a file has been replaced or written over; nothing where there is none."""
    with suppress(OSError):
        found = Path(path).stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return ()


class PasswordFile(CredentialProvider):
    """Reads the password for each new connection, so that it can be replaced without a restart."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The user name if there is one, and the password without its line ending. Raises AuthenticationError."""
        try:
            password = self._path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            # redis-py's own error, so that a failed login is handled like a Redis that is down.
            raise AuthenticationError(f"the password file {self._path} cannot be read") from error
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return await asyncio.to_thread(self.get_credentials)


class _TlsConnection(SSLConnection):
    """A connection by TLS that connects with what the files of its certificates hold by then; redis-py's own reads them once for ever."""

    _read: list[tuple[int, ...]] | None = None

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if not self.is_connected:
            await self._read_what_changed()
        await super().connect_check_health(check_health, retry_socket_connect)

    async def _read_what_changed(self) -> None:
        files = [_stamp(path) for path in (self.ca_certs, self.certfile, self.keyfile) if path]
        if files != self._read:
            self._read, self.ssl_context.context = files, None
            # What can't be read is told when it connects.
            with suppress(OSError):
                # The system's own authorities are many: others go on meanwhile.
                await asyncio.to_thread(self.ssl_context.get)


class _ClosedAtOnce(AbstractConnection):
    """A connection that waits for no goodbye: by TLS, a server that stands still would be waited for half a minute."""

    async def disconnect(
        self, nowait: bool = False, error: Exception | None = None, failure_count: int | None = None, health_check_failed: bool = False
    ) -> None:
        await super().disconnect(True, error, failure_count, health_check_failed)


class _ServerTlsConnection(_ClosedAtOnce, _TlsConnection):
    """Of one server by TLS."""


class _MasterConnection(_ClosedAtOnce, SentinelManagedConnection):
    """Of a master behind Sentinel."""


class _MasterTlsConnection(_ClosedAtOnce, _TlsConnection, SentinelManagedSSLConnection):
    """The same by TLS."""


class Sentinels(Sentinel):
    """Sentinels, asked one after another; the one that answered last is asked first."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the master. Raises MasterNotFoundError, with the answer of each Sentinel."""
        refusals = []
        for sentinel in tuple(self.sentinels):
            options = sentinel.connection_pool.connection_kwargs
            name = f"the Sentinel at {options['host']}:{options['port']}"
            try:
                # With RESP2 the answer is a dictionary by name.
                masters = cast("dict[str, dict[str, Any]]", await sentinel.sentinel_masters())
            except RedisError as error:
                refusals.append(f"{name}: {str(error).rstrip('.') or 'no answer'}")
                continue
            state = masters.get(service_name)
            if state is not None and self.check_master_state(state, service_name):
                self.sentinels.sort(key=lambda other: other is not sentinel)
                return state["ip"], state["port"]
            refusals.append(f"{name} knows {'no living' if state else 'no'} master of that name")
        raise MasterNotFoundError("; ".join(refusals))


def open_client(url: RedisUrl, timeout_seconds: float, max_connections: int) -> RedisClient:
    """A client that connects on first use, with at most `max_connections` to each server."""
    # RESP2, because with RESP3 redis-py waits for maintenance notices and does not notice that Redis has closed a pooled connection.
    common: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None, "max_connections": max_connections}
    login = _login(url.login)
    tls: dict[str, Any] = {"ssl": True, **url.tls_options} if url.tls else {}
    match url.topology:
        case Topology.SINGLE:
            ((host, port),) = url.nodes
            kind = _ServerTlsConnection if url.tls else Connection
            options: dict[str, Any] = {**common, **login, **url.tls_options}
            return Redis.from_pool(ConnectionPool(kind, host=host, port=port, db=url.database, **options))
        case Topology.SENTINEL:
            patience = timeout_seconds / _SENTINEL_SHARE
            # Retries of a Sentinel that is down would take the time to ask the others.
            once = Retry(NoBackoff(), 0)
            asking = {"protocol": 2, "socket_timeout": patience, "socket_connect_timeout": patience, "retry": once, **tls}
            sentinels = Sentinels(url.nodes, sentinel_kwargs=asking | _login(url.sentinel_login))  # type: ignore[no-untyped-call]
            for sentinel in sentinels.sentinels if url.tls else ():
                sentinel.connection_pool.connection_class = _TlsConnection
            of_master = _MasterTlsConnection if url.tls else _MasterConnection
            master: Redis = sentinels.master_for(url.service, db=url.database, connection_class=of_master, **common, **login, **tls)
            return master
        case Topology.CLUSTER:
            nodes = [ClusterNode(host, port) for host, port in url.nodes]
            # A slot that has moved is asked of where it is now, however many have: redis-py would close all connections, of commands that
            # wait for an answer too, at every fifth. `server.redis.access` has the layout read anew where a server is gone.
            cluster = RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), reinitialize_steps=0, **common, **login, **tls)
            if url.tls:
                # The class for connections to the servers that it will find, and to those that it asks for them.
                cluster.connection_kwargs["connection_class"] = _TlsConnection
                for node in cluster.startup_nodes:
                    node.connection_class = _TlsConnection
            return cluster


async def close_client(client: RedisClient) -> None:
    """Close the connections of a client, including those to Sentinels."""
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        await client.connection_pool.sentinel_manager.aclose()
    await client.aclose()


def _login(login: Login) -> dict[str, Any]:
    if login.password_file is not None:
        return {"credential_provider": PasswordFile(login.username, Path(login.password_file))}
    return {"username": login.username, "password": login.password}
