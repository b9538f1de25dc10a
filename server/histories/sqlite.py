"""`SqliteHistoryStore`: histories in one SQLite file, for a machine without Redis.

Invariant: an append is one transaction, committed and synced before it returns, so an acknowledged event survives a kill or a power cut,
and a reader never sees half an append. Write-ahead logging lets other processes read at the same time.

All statements run on one thread of the store, because SQLite calls block, above all on the sync of a commit.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from server.errors import HistoryUnavailable
from server.histories.base import Event, Retention

_P = ParamSpec("_P")
_T = TypeVar("_T")

_SCHEMA_VERSION = 1
_USERS_PER_TRANSACTION = 50
_EXPIRED_PER_APPEND = 10
_CACHE_KIB = 256

_SCHEMA = (
    "CREATE TABLE history_users (user INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, arrivals INTEGER NOT NULL, expires_at REAL)",
    "CREATE INDEX history_users_by_expiry ON history_users (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE history_events (user INTEGER NOT NULL REFERENCES history_users ON DELETE CASCADE,"
    " timestamp REAL NOT NULL, arrival INTEGER NOT NULL, event_id TEXT, item_id TEXT NOT NULL,"
    " PRIMARY KEY (user, timestamp, arrival)) WITHOUT ROWID",
    "CREATE UNIQUE INDEX history_events_by_id ON history_events (user, event_id) WHERE event_id IS NOT NULL",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)

_FORGET_EXPIRED = (
    "DELETE FROM history_users WHERE user_id = :user_id AND expires_at <= :now",
    f"DELETE FROM history_users WHERE user IN (SELECT user FROM history_users WHERE expires_at <= :now LIMIT {_EXPIRED_PER_APPEND})",
)
_CLAIM_ARRIVALS = (
    "INSERT INTO history_users (user_id, arrivals, expires_at) VALUES (:user_id, :count, :expires_at)"
    " ON CONFLICT (user_id) DO UPDATE SET arrivals = arrivals + excluded.arrivals, expires_at = excluded.expires_at"
    " RETURNING user, arrivals - :count"
)
_ADD = "INSERT INTO history_events VALUES (?, ?, ?, ?, ?) ON CONFLICT (user, event_id) WHERE event_id IS NOT NULL DO NOTHING"
_NEWEST_FIRST = "FROM history_events WHERE user = :user ORDER BY timestamp DESC, arrival DESC LIMIT"
_TRIM = (
    f"DELETE FROM history_events WHERE user = :user AND timestamp < (SELECT timestamp {_NEWEST_FIRST} 1 OFFSET :max_events - 1)",
    "DELETE FROM history_events WHERE user = :user"
    f" AND (timestamp, arrival) <= (SELECT timestamp, arrival {_NEWEST_FIRST} 1 OFFSET 2 * :max_events)",
)
_COUNT_SHOWN = f"SELECT count(*) FROM (SELECT arrival {_NEWEST_FIRST} :max_events) WHERE arrival >= :first_arrival"
_READ = (
    "SELECT item_id, timestamp, event_id FROM history_events WHERE user ="
    " (SELECT user FROM history_users WHERE user_id = :user_id AND (expires_at IS NULL OR expires_at > :now))"
    " ORDER BY timestamp DESC, arrival DESC LIMIT :window"
)


class SqliteHistoryStore:
    """A `HistoryStore` in the file at `path`, which is created with its folder if it does not exist.

    An operation waits at most `timeout_seconds` for a writer in another process. Raises ValueError if the file cannot be opened or is not a
    history file.
    """

    def __init__(self, path: Path, retention: Retention, timeout_seconds: float = 0.5) -> None:
        self._path = path
        self._retention = retention
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open(path, timeout_seconds)
        except (OSError, sqlite3.DatabaseError) as error:
            raise ValueError(f"The history file {path} cannot be opened: {error}.") from error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-histories")

    @classmethod
    def from_url(cls, url: str, retention: Retention, timeout_seconds: float = 0.5) -> Self:
        """The store of `sqlite:///relative/path`, `sqlite:////absolute/path` or `sqlite:///~/path`.

        Raises ValueError as the constructor, and for another URL.
        """
        name = url.removeprefix("sqlite:///")
        if name == url or name in ("", ":memory:"):
            raise ValueError(
                f"The history URL {url} names no file: use sqlite:///relative/path or sqlite:////absolute/path, or memory:// for none."
            )
        return cls(Path(name).expanduser(), retention, timeout_seconds)

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        return await self.append_many({user_id: events})

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        stored = 0
        remaining = iter(histories.items())
        # One transaction per group, so that many users share the sync of a commit, but other operations can run during a long load.
        while group := list(islice(remaining, _USERS_PER_TRANSACTION)):
            stored += await self._run(self._append_group, group)
        return stored

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        return await self._run(self._read, user_id, self._retention.window(limit))

    async def delete(self, user_id: str) -> bool:
        return await self._run(self._delete, user_id)

    async def ping(self) -> None:
        await self._run(self._read, "", 1)

    async def close(self) -> None:
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await asyncio.wrap_future(self._thread.submit(call, *args, **kwargs))
        except sqlite3.DatabaseError as error:
            raise HistoryUnavailable(f"The history file {self._path} cannot be used: {error}.") from error

    def _append_group(self, group: Sequence[tuple[str, Sequence[Event]]]) -> int:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            return sum(self._append(user_id, events) for user_id, events in group if events)

    def _append(self, user_id: str, events: Sequence[Event]) -> int:
        now = time.time()
        expires_at = None if self._retention.ttl_seconds is None else now + self._retention.ttl_seconds
        for statement in _FORGET_EXPIRED:
            self._connection.execute(statement, {"user_id": user_id, "now": now})
        claim = {"user_id": user_id, "count": len(events), "expires_at": expires_at}
        ((user, first_arrival),) = self._connection.execute(_CLAIM_ARRIVALS, claim)
        rows = [(user, event.timestamp, first_arrival + index, event.event_id, event.item_id) for index, event in enumerate(events)]
        self._connection.executemany(_ADD, rows)
        bounds = {"user": user, "max_events": self._retention.max_events, "first_arrival": first_arrival}
        for statement in _TRIM:
            self._connection.execute(statement, bounds)
        ((shown,),) = self._connection.execute(_COUNT_SHOWN, bounds)
        return int(shown)

    def _read(self, user_id: str, window: int) -> list[Event]:
        rows = self._connection.execute(_READ, {"user_id": user_id, "now": time.time(), "window": window}).fetchall()
        return [Event(*row) for row in reversed(rows)]

    def _delete(self, user_id: str) -> bool:
        live = "SELECT count(*) FROM history_users WHERE user_id = ? AND (expires_at IS NULL OR expires_at > ?)"
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            ((known,),) = self._connection.execute(live, (user_id, time.time()))
            self._connection.execute("DELETE FROM history_users WHERE user_id = ?", (user_id,))
        return bool(known)


def _open(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return _connect(path, timeout_seconds)
        except sqlite3.OperationalError as error:
            # SQLite itself does not wait while another process, started at the same moment, switches the file to write-ahead logging.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _connect(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    # Opened on this thread and then used on the store's thread only, so the same-thread check is not needed.
    connection = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # The operating system caches the pages of the file as well; SQLite's own cache would only take memory.
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            ((version,),) = connection.execute("PRAGMA user_version")
            if version == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"its format is {version}, and this release writes {_SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection
