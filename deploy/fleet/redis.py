"""`RedisTrio`: a Redis master with two replicas, and three Sentinels that promote one of them."""

from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from deploy.checks.failover import REPLICATION
from deploy.checks.processes import wait_until
from tests.services import RedisServer, SentinelServers

WHOLE_SECONDS = 60.0


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
        return wait_until(self._is_whole, WHOLE_SECONDS) is not None

    def _is_whole(self) -> bool:
        try:
            with Redis(port=self.master().port, socket_timeout=1) as master:
                told = master.info("replication")
        except RedisError:
            return False
        links = [told.get(f"slave{number}", {}).get("state") for number in range(2)]
        return told["role"] == "master" and links == ["online", "online"]
