"""`RedisTrio`: a Redis master with two replicas, and three Sentinels that promote one of them; `Wholeness` tells when it was not whole."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from deploy.checks.failover import REPLICATION
from deploy.checks.processes import wait_until
from tests.services import RedisServer, SentinelServers

WHOLE_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass
class Span:
    """A stretch of time, seconds since 1970."""

    begun: float
    ended: float


class RedisTrio:
    """Started when it is made; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self.servers = [RedisServer(folder / name, *REPLICATION) for name in ("redis-0", "redis-1", "redis-2")]
        first = self.servers[0]
        for server in self.servers:
            server.folder.mkdir()
            if server is not first:
                server.options = (*REPLICATION, "--replicaof", "127.0.0.1", str(first.port))
            server.start()
            # Who is killed later was the master, and comes back as one; Sentinel then tells it whose replica it is.
            server.options = REPLICATION
        self._sentinels = SentinelServers(folder, first, count=3).wait_for(replicas=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sentinels.close()
        for server in self.servers:
            server.close()

    @property
    def url(self) -> str:
        """Of the Sentinels; a write is acknowledged when both replicas of Redis have it."""
        return f"{self._sentinels.url}?wait_replicas=2"

    def master(self) -> RedisServer:
        """The server that the Sentinels hold for the master."""
        with Redis(port=self._sentinels.ports[0], protocol=2, socket_timeout=5) as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name("films")
        return next(server for server in self.servers if server.port == int(port))

    def wait_until_whole(self) -> bool:
        """Wait until the master has both replicas, so that it may be harmed; False if that does not come."""
        return wait_until(self.is_whole, WHOLE_SECONDS) is not None

    def is_whole(self) -> bool:
        """Whether the master has both replicas, so that it can confirm what is written and read."""
        try:
            with Redis(port=self.master().port, socket_timeout=1) as master:
                told = master.info("replication")
        except RedisError:
            return False
        links = [told.get(f"slave{number}", {}).get("state") for number in range(2)]
        return told["role"] == "master" and links == ["online", "online"]


class Wholeness:
    """Watches a trio in a thread of its own.

    Reason: after a fault Redis is whole much later than the server that was harmed goes on: a Sentinel makes a replica of a master that
    has come back only when it has called itself a master for eight seconds.

    Attributes:
        broken: when the trio was not whole, in order.
    """

    def __init__(self, redis: RedisTrio) -> None:
        self.broken: list[Span] = []
        self._redis = redis
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        seen_whole = time.time()
        is_whole = True
        while not self._over.wait(_POLL_SECONDS):
            was_whole, is_whole = is_whole, self._redis.is_whole()
            now = time.time()
            if not is_whole and was_whole:
                # It broke at some time since it was seen to be whole.
                self.broken.append(Span(seen_whole, now))
            if not (is_whole and was_whole):
                self.broken[-1].ended = now
            if is_whole:
                seen_whole = now
