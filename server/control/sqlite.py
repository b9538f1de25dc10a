"""`SqliteControlStore`: the control store in one SQLite file, for servers on one machine.

Invariant: the log holds the newest write, also the one that created the state, so its last row is the position. A write is one transaction,
which is on the disk when it returns. Announcements are not waited for, because they are soon outdated.

SQLite calls block, so they run on threads of the store: one that writes, one that reads. Whether anything was written is seen without these
threads, from a number in memory that all processes share: reading it takes microseconds, and the way to a thread and back takes much
longer.
"""

import asyncio
import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from drafting.undecodable import UNDECODABLE
from server.control.base import Limits, Position, Replica, State, Write, random_name
from server.sqlite import create, data_version, make_tables, open_reader, open_unchanging, open_writer
from server.ticks import until_tick
from server.try_again import ControlConflict, ControlFull, ControlUnavailable

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_FORMAT = 1
_SCHEMA = (
    "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE log (revision INTEGER PRIMARY KEY, generation TEXT NOT NULL, write_id TEXT NOT NULL, at REAL NOT NULL, "
    "writer TEXT NOT NULL, size INTEGER NOT NULL, changes BLOB NOT NULL)",
    "CREATE TABLE replicas (name TEXT PRIMARY KEY, expires_at REAL NOT NULL, announcement BLOB NOT NULL)",
    f"PRAGMA user_version = {_FORMAT}",
)
_POSITION = "SELECT generation, revision, write_id FROM log ORDER BY revision DESC LIMIT 1"
_IN_LOG = "SELECT 1 FROM log WHERE generation = ? AND revision = ? AND write_id = ?"
_AFTER = "SELECT generation, revision, write_id, at, writer, changes FROM log WHERE revision > ? ORDER BY revision"
_APPEND = "INSERT INTO log (generation, revision, write_id, at, writer, size, changes) VALUES (?, ?, ?, ?, ?, ?, ?)"
_changes = msgspec.msgpack.Decoder(dict[str, bytes | None])


class SqliteControlStore:
    """A `ControlStore` in the file at `path`, which is created with its folder. Raises ValueError if it can't be used."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="control-writing")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="control-reading")
        # What the position was when the file was at a version of its data.
        self._known: tuple[int | None, Position | None] = None, None
        try:
            create(path)
            self._writer = open_writer(path, limits.timeout_seconds, _prepare)
            self._reader, self._looker = open_reader(path, limits.timeout_seconds), open_reader(path, 0)
        except (OSError, sqlite3.DatabaseError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES) and path.is_file():
                # What it says is served; a write fails as any that can't be stored.
                logger.warning("the control file %s can't be changed: %s", path, error.strerror)
                self._writer, self._reader, self._looker = (open_unchanging(path) for _ in range(3))
                return
            raise ValueError(f"The control file {path} cannot be opened: {error}.") from error

    async def create(self, values: Mapping[str, bytes]) -> State:
        def begin() -> State:
            if _position(self._writer) is not None:
                raise ControlConflict
            return self._begin(values, 0)

        return await self._answer(self._writing.submit(self._transaction, begin))

    async def replace(self, values: Mapping[str, bytes], revision: int) -> State:
        def begin() -> State:
            held = _position(self._writer)
            return self._begin(values, 1 + max(revision, held.revision if held else revision))

        return await self._answer(self._writing.submit(self._transaction, begin))

    async def state(self) -> State | None:
        return await self._answer(self._reading.submit(self._read_state))

    async def position(self) -> Position | None:
        # The version first: what is written while the position is read makes it another one.
        version = data_version(self._looker)
        if version is None or version != self._known[0]:
            self._known = version, await self._answer(self._reading.submit(_position, self._reader))
        return self._known[1]

    async def writes(self, after: Position) -> list[Write] | None:
        return await self._answer(self._reading.submit(self._read_log, after))

    async def write(self, after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        write = Write(Position(after.generation, after.revision + 1, random_name()), time.time(), by, dict(changes))

        def change() -> Write:
            if _position(self._writer) != after:
                raise ControlConflict
            self._writer.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in changes])
            kept = [(key, value) for key, value in changes.items() if value is not None]
            self._writer.executemany("INSERT INTO entries VALUES (?, ?)", kept)
            self._append(write)
            return write

        return await self._answer(self._writing.submit(self._transaction, change))

    async def wait(self, seen: Position | None, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and await self.position() == seen:
            await asyncio.sleep(min(left, until_tick()))

    async def announce(self, replica: Replica) -> None:
        row = replica.name, time.time() + self._limits.announced_seconds, msgspec.json.encode(replica)
        await self._answer(self._writing.submit(self._change_replicas, "INSERT OR REPLACE INTO replicas VALUES (?, ?, ?)", row))

    async def withdraw(self, name: str) -> None:
        await self._answer(self._writing.submit(self._change_replicas, "DELETE FROM replicas WHERE name = ?", (name,)))

    async def replicas(self) -> list[Replica]:
        return await self._answer(self._reading.submit(self._read_replicas))

    async def close(self) -> None:
        for pool in (self._writing, self._reading):
            await asyncio.to_thread(pool.shutdown)
        self._writer.close()
        self._reader.close()
        self._looker.close()

    async def _answer(self, job: "Future[_T]") -> _T:
        try:
            return await asyncio.wrap_future(job)
        except sqlite3.OperationalError as error:
            # The last byte of an extended code says what it is about. What was begun was rolled back.
            kind = ControlFull if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY) else ControlUnavailable
            raise kind(f"The control file {self._path} cannot be used: {error}.") from error
        except (sqlite3.Error, *UNDECODABLE) as error:
            raise ControlUnavailable(f"The control file {self._path} cannot be used: {error}.") from error

    def _transaction(self, call: Callable[[], _T]) -> _T:
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            return call()

    def _begin(self, values: Mapping[str, bytes], revision: int) -> State:
        position = Position(random_name(), revision, random_name())
        self._writer.execute("DELETE FROM entries")
        self._writer.execute("DELETE FROM log")
        self._writer.executemany("INSERT INTO entries VALUES (?, ?)", values.items())
        self._append(Write(position, time.time(), "", {}))
        return State(position, dict(values))

    def _append(self, write: Write) -> None:
        content = msgspec.msgpack.encode(write.changes)
        position = write.position
        row = position.generation, position.revision, position.write_id, write.at, write.by, write.size, content
        self._writer.execute(_APPEND, row)
        ((count, size),) = self._writer.execute("SELECT count(*), sum(size) FROM log")
        oldest = self._writer.execute("SELECT revision, size FROM log ORDER BY revision").fetchall()
        for revision, less in oldest[:-1]:
            if count <= self._limits.log_writes and size <= self._limits.log_bytes:
                break
            self._writer.execute("DELETE FROM log WHERE revision = ?", (revision,))
            count, size = count - 1, size - less

    def _read_state(self) -> State | None:
        # One transaction, so that the values are those of the position.
        with self._reader:
            self._reader.execute("BEGIN")
            position = _position(self._reader)
            if position is None:
                return None
            return State(position, dict(self._reader.execute("SELECT key, value FROM entries").fetchall()))

    def _read_log(self, after: Position) -> list[Write] | None:
        with self._reader:
            self._reader.execute("BEGIN")
            if not self._reader.execute(_IN_LOG, (after.generation, after.revision, after.write_id)).fetchone():
                return None
            rows = self._reader.execute(_AFTER, (after.revision,)).fetchall()
        return [Write(Position(*position), at, by, _changes.decode(content)) for *position, at, by, content in rows]

    def _change_replicas(self, statement: str, row: tuple[str | float | bytes, ...]) -> None:
        # Replicas announce themselves all the time, which is not worth a sync of the disk.
        self._writer.execute("PRAGMA synchronous = NORMAL")
        try:
            self._writer.execute(statement, row)
            self._writer.execute("DELETE FROM replicas WHERE expires_at <= ?", (time.time(),))
        finally:
            self._writer.execute("PRAGMA synchronous = FULL")

    def _read_replicas(self) -> list[Replica]:
        rows = self._reader.execute("SELECT announcement FROM replicas WHERE expires_at > ? ORDER BY name", (time.time(),))
        return [msgspec.json.decode(told, type=Replica) for (told,) in rows]


def _prepare(connection: sqlite3.Connection) -> None:
    """Create the tables of a new file. Raises sqlite3.DatabaseError."""
    make_tables(connection, _SCHEMA, _FORMAT)


def _position(connection: sqlite3.Connection) -> Position | None:
    row = connection.execute(_POSITION).fetchone()
    return row and Position(*row)
