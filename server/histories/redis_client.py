"""Clients of redis-py for each way in which Redis servers can stand to each other.

Invariant: a client sends no command twice and waits for nothing without an end of its caller's. Reason: an append whose answer was lost may
have been stored, so only its sender can decide to repeat it; and the store bounds each operation as a whole, which timeouts that count
anew for each step would stretch.
"""

from typing import Any

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from server.histories.redis_url import RedisUrl, Topology

RedisClient = Redis | RedisCluster
# A Sentinel that hangs must leave time to ask another.
_SENTINEL_SHARE = 3


def open_client(url: RedisUrl, timeout_seconds: float, max_connections: int) -> RedisClient:
    """A client that connects when it is first used; at most `max_connections` to each server."""
    # RESP2: under RESP3 redis-py waits for maintenance notices, and then no longer notices that Redis has closed a pooled connection.
    common: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None, "max_connections": max_connections}
    login: dict[str, Any] = {"username": url.username, "password": url.password}
    tls: dict[str, Any] = {"ssl": True, **url.tls_options} if url.tls else {}
    match url.topology:
        case Topology.SINGLE:
            ((host, port),) = url.nodes
            kind = SSLConnection if url.tls else Connection
            options: dict[str, Any] = {**common, **login, **url.tls_options}
            return Redis.from_pool(ConnectionPool(kind, host=host, port=port, db=url.database, **options))
        case Topology.SENTINEL:
            patience = timeout_seconds / _SENTINEL_SHARE
            asking = {"protocol": 2, "socket_timeout": patience, "socket_connect_timeout": patience, **tls}
            sentinel = Sentinel(url.nodes, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
            master: Redis = sentinel.master_for(url.service, db=url.database, **common, **login, **tls)
            return master
        case Topology.CLUSTER:
            nodes = [ClusterNode(host, port) for host, port in url.nodes]
            return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **common, **login, **tls)
