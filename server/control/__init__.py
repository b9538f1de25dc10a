"""The control store: what all replicas of a server must agree on, in a store that is chosen by URL.

Invariant: the stores differ in durability and reach, never in results, as those of `server.histories`.
"""

from server.control.base import NOWHERE, ControlStore, Limits, Position, Replica, State, Write
from server.sqlite import file_of
from server.store_kind import kind_of

__all__ = ["NOWHERE", "ControlStore", "Limits", "Position", "Replica", "State", "Write", "open_control_store"]


def open_control_store(url: str, limits: Limits | None = None, key_prefix: str = "atspeed:control") -> ControlStore:
    """Open the control store of `url`.

    `memory://` ends with this process, and no other process sees it; `sqlite:///relative/path` and `sqlite:////absolute/path` are files for
    the servers of one machine; `redis://…`, `redis+sentinel://…` and `redis+cluster://…` are a Redis, with `rediss` for TLS, as those of
    histories. With `?wait_replicas=2` (not for a Cluster) a write is acknowledged when two replicas of Redis have it.

    Args:
        key_prefix: beginning of every Redis key.

    Raises:
        ValueError: the URL can't be used; the message is a sentence without passwords.
    """
    limits = limits or Limits()
    kind = kind_of(url, "control")
    # Stores are imported on demand, because importing redis-py takes a tenth of a second.
    if kind == "memory":
        from server.control.memory import MemoryControlStore

        return MemoryControlStore(limits)
    if kind == "sqlite":
        from server.control.sqlite import SqliteControlStore

        return SqliteControlStore(file_of(url, "control"), limits)
    from server.control.redis import RedisControlStore

    return RedisControlStore(url, limits, key_prefix)
