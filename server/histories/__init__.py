"""User histories: what each user did, oldest first, behind one contract and chosen by URL.

Invariant: which store stands behind `HistoryStore` changes durability and speed, never an answer. Reason: the demo (SQLite), a unit test
(memory) and production (Redis) must recommend the same items for the same events, or a fault seen in one could not be reproduced in
another.
"""

from urllib.parse import urlsplit

from server.histories.base import DEFAULT_MAX_EVENTS, Event, HistoryStore, Retention

__all__ = ["Event", "HistoryStore", "Retention", "open_history_store"]


def open_history_store(
    url: str,
    *,
    max_events: int = DEFAULT_MAX_EVENTS,
    ttl_seconds: float | None = None,
    timeout_seconds: float = 0.5,
    key_prefix: str = "atspeed:history",
) -> HistoryStore:
    """The store that `url` names.

    `memory://` lives and dies with this process; `sqlite:///relative/path` and `sqlite:////absolute/path` keep a file;
    `redis://[user:password@]host[:port][/db]`, `redis+sentinel://host,host/master[/db]` and `redis+cluster://host,host` share a Redis,
    which need not be up yet; `rediss…` is the same by TLS, to Sentinels as well. `?wait_replicas=1` (not for a Cluster) acknowledges an
    append only when a replica has it. Sentinels have a password of their own: `?sentinel_password=…`, and `sentinel_username`.
    `?password_file=/path` and `?sentinel_password_file=/path` keep passwords out of the URL; they are read for each connection anew.

    Each user's newest `max_events` are kept, for `ttl_seconds` after the last append (None: for ever). `timeout_seconds` bounds a whole
    Redis operation, and SQLite's wait for a writer in another process; `key_prefix` starts every Redis key. Raises ValueError, in one
    sentence without the URL's passwords, for a URL or a number that cannot be used.
    """
    retention = Retention(max_events, ttl_seconds)
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be above 0, not {timeout_seconds:g}.")
    # Each store is imported on demand: redis-py alone costs a tenth of a second of start-up, which an embedded store need not pay.
    match url.partition("://")[0]:
        case "memory":
            from server.histories.memory import MemoryHistoryStore

            if url != "memory://":
                raise ValueError("A memory history store takes no options: the URL is memory:// and nothing more.")
            return MemoryHistoryStore(retention)
        case "sqlite":
            from server.histories.sqlite import SqliteHistoryStore

            return SqliteHistoryStore.from_url(url, retention, timeout_seconds)
        case "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster":
            from server.histories.redis import RedisHistoryStore

            return RedisHistoryStore(url, retention, timeout_seconds, key_prefix)
        case _:
            raise ValueError(
                f"The history URL's scheme is {urlsplit(url).scheme or 'missing'!r}: use memory://, sqlite:///path, redis://, "
                "redis+sentinel:// or redis+cluster://, the last three with rediss for TLS."
            )
