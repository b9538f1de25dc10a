"""`RedisRates`: the storage of `limits` on a Redis of any topology, through a client of ours."""

from typing import ClassVar

from limits.aio.storage import RedisStorage

from server.redis.client import RedisClient


class RedisRates(RedisStorage):
    """As the storage of `limits`, but for the client: passwords in files, TLS and Sentinels are those of all rooms."""

    # Not one that `limits` finds by a URL.
    STORAGE_SCHEME: ClassVar[list[str]] = []  # type: ignore[misc]

    def __init__(self, client: RedisClient, key_prefix: str) -> None:
        self._client = client
        # Keys end in the part that decides where they lie in a Cluster: `limits` puts it into braces.
        super().__init__("redis://", implementation="redispy", key_prefix=f"{key_prefix}:rate")

    def configure_bridge(self) -> None:
        """Give the library our client in place of one of its own."""
        vars(self.bridge).update(storage=self._client, connection_getter=lambda _: self._client)
