"""`RedisAccess`: a Redis as a store uses it, which may be down at any time.

Invariant: each operation ends within its time, from waiting for a connection to the answer, and whatever fails is one error of the store's,
a sentence with the address and without passwords.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.commands.core import AsyncScript
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from server.redis.client import close_client, open_client
from server.redis.url import RedisUrl

# Connections that lead to a replica are given up no more often, nor is the layout of a Cluster read: making connections anew costs the
# requests that read.
_ANEW_SECONDS = 1.0
# What a Cluster says where servers of it are gone.
_GONE = (RedisConnectionError, ClusterDownError, RedisClusterException)


class RedisAccess:
    """The Redis at `url`.

    Args:
        timeout_seconds: limit of each operation.
        connections: number of connections to each server; further operations wait for one within their time.
        purpose: what the Redis is for, to complete "cannot serve".
        unavailable: the error of an operation that fails, made of a sentence.
        full: that of one for which Redis has no memory; `unavailable` by default.

    Raises:
        ValueError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        connections: int,
        purpose: str,
        unavailable: Callable[[str], Exception],
        full: Callable[[str], Exception] | None = None,
    ) -> None:
        self._url = RedisUrl.parse(url)
        self._timeout_seconds = timeout_seconds
        self._purpose = purpose
        self._unavailable, self._full = unavailable, full or unavailable
        self.client = open_client(self._url, timeout_seconds, connections)
        self._turns = asyncio.Semaphore(connections)
        self._anew_at = 0.0
        self._is_layout_doubted = False

    @property
    def address(self) -> str:
        """The address, for messages."""
        return self._url.address

    @property
    def is_confirmed(self) -> bool:
        """True if a write counts only when replicas of Redis have it."""
        return self._url.wait_replicas > 0

    @asynccontextmanager
    async def reach(self, waited_seconds: float = 0.0, *, share: float = 1.0) -> AsyncIterator[None]:
        """Limit the time of an operation, and turn failures into the store's error.

        Args:
            waited_seconds: how long Redis may wait itself, beside.
            share: of the limit, for what is quick.
        """
        seconds = share * self._timeout_seconds + waited_seconds
        try:
            async with asyncio.timeout(seconds), self._turns:
                if isinstance(self.client, RedisCluster):
                    await self._read_layout(self.client)
                yield
        except TimeoutError as error:
            await self._ask_anew()
            raise self._unavailable(f"Redis at {self.address} did not answer within {seconds:g} s.") from error
        # That a Cluster has no server which answers is no RedisError.
        except (RedisError, RedisClusterException) as error:
            await self._leave_replica(error)
            if isinstance(error, _GONE):
                self._doubt_layout()
            reason = str(error).rstrip(".").replace(". ", "; ")
            # Redis 6 says it of a script behind what script that was.
            is_full = isinstance(error, OutOfMemoryError) or "OOM command not allowed" in reason
            kind = self._full if is_full else self._unavailable
            raise kind(f"Redis at {self.address} cannot serve {self._purpose}: {reason}.") from error

    async def write(
        self,
        script: AsyncScript,
        keys: Sequence[str],
        args: Sequence[str | int] | Sequence[str | bytes | int | float],
        *,
        share: float = 0.5,
    ) -> Any:
        """The answer of a script that writes, inside `reach`, once as many replicas have its writes as the URL says.

        Args:
            share: the share of an operation's time that replicas have to confirm the writes.
        """
        wanted = self._url.wait_replicas
        if not wanted or not isinstance(self.client, Redis):
            return await script(keys=keys, args=args)
        # WAIT counts the writes of its own connection; it ends before the timeout of the operation, so that its answer is read.
        connection = self.client.client()
        try:
            answer = await script(keys=keys, args=args, client=connection)
            reached = int(await connection.wait(wanted, round(1000 * share * self._timeout_seconds)))
        finally:
            # redis-py's own context leaves the connection to nobody where the time of the operation is over as it ends.
            await asyncio.shield(connection.aclose())
        if reached < wanted:
            await self._ask_anew()
            raise self._unavailable(f"Redis at {self.address} has stored a write on {reached} of the {wanted} replicas that must have it.")
        return answer

    async def _read_layout(self, cluster: RedisCluster) -> None:
        """Find out who has which slot, at first and where that is doubted."""
        is_doubted, self._is_layout_doubted = self._is_layout_doubted, False
        if is_doubted:
            # All that were found may have other addresses by now; redis-py asks only them, and the URL may have names.
            for node in cluster.startup_nodes:
                cluster.nodes_manager.startup_nodes.setdefault(node.name, node)
        # Commands that discover the layout concurrently close each other's connections, so discover it once before.
        await cluster.initialize()
        if is_doubted:
            await cluster.nodes_manager.initialize()

    def _doubt_layout(self) -> None:
        """Have the next operation on a Cluster find out who has which slot.

        redis-py does so after a command that gets no connection, but neither after a pipeline nor where the time of an operation is over,
        as with a server that is gone with its machine.
        """
        if isinstance(self.client, RedisCluster) and time.monotonic() >= self._anew_at:
            self._anew_at = time.monotonic() + _ANEW_SECONDS
            self._is_layout_doubted = True

    async def _ask_anew(self) -> None:
        """Ask who the master is before the next operation: one that has been replaced goes on for seconds before it is told."""
        self._doubt_layout()
        if isinstance(self.client, Redis) and isinstance(self.client.connection_pool, SentinelConnectionPool):
            await self._connect_anew(self.client)

    async def _leave_replica(self, error: Exception) -> None:
        """Connect anew where a write has come to a replica: of a name that leads to the master, the connections stay with what was it."""
        # Redis 6 says it of a script behind what script that was.
        is_replica = isinstance(error, ReadOnlyError) or "READONLY" in str(error)
        if is_replica and isinstance(self.client, Redis) and time.monotonic() >= self._anew_at:
            self._anew_at = time.monotonic() + _ANEW_SECONDS
            await self._connect_anew(self.client)

    async def _connect_anew(self, client: Redis) -> None:
        """Give up the connections that nobody uses."""
        # What fails of a connection that is given up is nothing to whoever waits.
        with suppress(RedisError):
            await client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close the connections."""
        await close_client(self.client)
