"""User histories: the events of each user, oldest first, and their profiles, in a store that is chosen by URL.

Invariant: the stores differ in durability and speed, never in results, so that a fault in production (Redis) can be reproduced in the demo
(SQLite) and in a unit test (memory).
"""

from contextlib import suppress

from server.histories.base import DEFAULT_MAX_EVENTS, DamageReport, Event, EventChoice, HistoryStore, Retention, StoredUser, log_damage
from server.sqlite import file_of
from server.store_kind import kind_of

__all__ = ["Event", "EventChoice", "HistoryStore", "Retention", "StoredUser", "check_there", "open_history_store"]


def open_history_store(
    url: str,
    *,
    max_events: int = DEFAULT_MAX_EVENTS,
    ttl_seconds: float | None = None,
    timeout_seconds: float = 0.5,
    key_prefix: str = "atspeed:history",
    on_damage: DamageReport = log_damage,
) -> HistoryStore:
    """Open the store of `url`.

    `memory://` ends with this process; `sqlite:///relative/path` and `sqlite:////absolute/path` are files;
    `redis://[user:password@]host[:port][/db]`, `redis+sentinel://host,host/master[/db]` and `redis+cluster://host,host` are a Redis, which
    may still be down; `rediss…` is the same with TLS, to Sentinels as well. With `?wait_replicas=1` (not for a Cluster) a write is
    acknowledged when a replica has it. Sentinels have their own password: `?sentinel_password=…`, and `sentinel_username`.
    `?password_file=/path` and `?sentinel_password_file=/path` keep passwords out of the URL; the files are read for each connection.

    Args:
        max_events: number of events to keep for each user, the newest ones by arrival.
        ttl_seconds: time to keep what is stored of a user after the last append or profile; None keeps it for ever.
        timeout_seconds: limit of a whole Redis operation, and of SQLite's wait for a writer in another process.
        key_prefix: beginning of every Redis key.
        on_damage: told of what is found damaged while histories of others, or the rest of a history, can be read.

    Raises:
        ValueError: the URL or a number cannot be used; the message is a sentence without passwords.
    """
    retention = Retention(max_events, ttl_seconds)
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be above 0, not {timeout_seconds:g}.")
    kind = kind_of(url, "history")
    # Stores are imported on demand, because importing redis-py takes a tenth of a second.
    if kind == "memory":
        from server.histories.memory import MemoryHistoryStore

        return MemoryHistoryStore(retention)
    if kind == "sqlite":
        from server.histories.sqlite import SqliteHistoryStore

        return SqliteHistoryStore.from_url(url, retention, timeout_seconds, on_damage)
    from server.histories.redis import RedisHistoryStore

    return RedisHistoryStore(url, retention, timeout_seconds, key_prefix, on_damage)


def check_there(url: str) -> None:
    """Refuse a file that opening would make: whoever only reads or forgets would find nobody in it, and believe that nobody is stored.

    Raises:
        ValueError: the URL names an SQLite file that is not there, or none.
    """
    # Where it can't be looked for, opening it says so.
    with suppress(OSError):
        if url.startswith("sqlite:") and not (path := file_of(url, "history")).exists():
            raise ValueError(
                f"There is no history file {path.absolute()}: name the server's, as sqlite:///relative/path or sqlite:////absolute/path."
            )
