"""Clients of redis-py for each way in which Redis servers can stand to each other.

Invariant: a client sends no command twice and waits for nothing without an end of its caller's. Reason: an append whose answer was lost may
have been stored, so only its sender can decide to repeat it; and the store bounds each operation as a whole, which timeouts that count
anew for each step would stretch.
"""

import asyncio
from pathlib import Path
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError

from server.histories.redis_url import Login, RedisUrl, Topology

RedisClient = Redis | RedisCluster
# A Sentinel that hangs must leave time to ask another.
_SENTINEL_SHARE = 3


class PasswordFile(CredentialProvider):
    """Reads the password for each connection anew, so that one that is replaced needs no restart."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The password, without the end of its line, after the user's name if there is one. Raises AuthenticationError."""
        try:
            password = self._path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            # redis-py's own error, so that a Redis that can't be logged in to is as unavailable as one that is down.
            raise AuthenticationError(f"the password file {self._path} cannot be read") from error
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return await asyncio.to_thread(self.get_credentials)


class Sentinels(Sentinel):
    """Sentinels that are asked in turn, the one that answered last first; what they say is passed on in words."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Address of the master. Raises MasterNotFoundError, with what each Sentinel has said."""
        refusals = []
        for sentinel in tuple(self.sentinels):
            options = sentinel.connection_pool.connection_kwargs
            name = f"the Sentinel at {options['host']}:{options['port']}"
            try:
                # Under RESP2 the answer is by name.
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
    """A client that connects when it is first used; at most `max_connections` to each server."""
    # RESP2: under RESP3 redis-py waits for maintenance notices, and then no longer notices that Redis has closed a pooled connection.
    common: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None, "max_connections": max_connections}
    login = _login(url.login)
    tls: dict[str, Any] = {"ssl": True, **url.tls_options} if url.tls else {}
    match url.topology:
        case Topology.SINGLE:
            ((host, port),) = url.nodes
            kind = SSLConnection if url.tls else Connection
            options: dict[str, Any] = {**common, **login, **url.tls_options}
            return Redis.from_pool(ConnectionPool(kind, host=host, port=port, db=url.database, **options))
        case Topology.SENTINEL:
            patience = timeout_seconds / _SENTINEL_SHARE
            # Asked again, with pauses, a Sentinel that is down would take the time of those that are not.
            once = Retry(NoBackoff(), 0)
            asking = {"protocol": 2, "socket_timeout": patience, "socket_connect_timeout": patience, "retry": once, **tls}
            sentinels = Sentinels(url.nodes, sentinel_kwargs=asking | _login(url.sentinel_login))  # type: ignore[no-untyped-call]
            master: Redis = sentinels.master_for(url.service, db=url.database, **common, **login, **tls)
            return master
        case Topology.CLUSTER:
            nodes = [ClusterNode(host, port) for host, port in url.nodes]
            return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **common, **login, **tls)


async def close_client(client: RedisClient) -> None:
    """Close a client's connections, those to its Sentinels too."""
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        await client.connection_pool.sentinel_manager.aclose()
    await client.aclose()


def _login(login: Login) -> dict[str, Any]:
    if login.password_file is not None:
        return {"credential_provider": PasswordFile(login.username, Path(login.password_file))}
    return {"username": login.username, "password": login.password}
