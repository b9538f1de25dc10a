"""The SQLite file of `SqliteHistoryStore`: its format, checksums, and the check at start.

Invariant: a history is one row with a checksum over its user and its bytes, so what a disk has changed or lost is never taken for a
shorter history. Of several rows of a user the last one counts: one that is too damaged even to be deleted is replaced by another.
"""

import random
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from drafting.undecodable import UNDECODABLE
from server.errors import HistoryDamaged
from server.histories.base import DamageReport, Event, StoredUser
from server.histories.history import Entry, History, Profile
from server.sqlite import make_tables

_T = TypeVar("_T")

_FORMAT = 3
_FINDINGS = 3
# Bytes of a history that are quickly checked, events of it that are quickly decoded, and bytes of the shortest event.
_QUICK_BYTES, _QUICK_EVENTS, _EVENT_BYTES = 2**18, 200, 16

_SCHEMA = (
    "CREATE TABLE histories (user_id TEXT NOT NULL, expires_at REAL, checksum INTEGER NOT NULL, history BLOB NOT NULL)",
    "CREATE INDEX histories_by_user ON histories (user_id)",
    "CREATE INDEX histories_by_expiry ON histories (expires_at) WHERE expires_at IS NOT NULL",
    f"PRAGMA user_version = {_FORMAT}",
)
_LAST = "(SELECT max(rowid) FROM histories WHERE user_id = :user_id)"
_READ = f"SELECT checksum, history FROM histories WHERE rowid = {_LAST} AND (expires_at IS NULL OR expires_at > :now)"
# Damage may make other types of values, and no value.
_SIZE = f"SELECT ifnull(length(history), 0) FROM histories WHERE rowid = {_LAST}"
_SCAN = """SELECT rowid, ifnull(CAST(user_id AS TEXT), ''), expires_at IS NULL OR expires_at > :now, checksum, history FROM histories
WHERE rowid >= :start ORDER BY rowid LIMIT :users"""
_REPLACE = f"UPDATE histories SET expires_at = :expires_at, checksum = :checksum, history = :history WHERE rowid = {_LAST}"
_REPLACE_CONTENT = f"UPDATE histories SET checksum = :checksum, history = :history WHERE rowid = {_LAST}"
_FORGET = "DELETE FROM histories WHERE user_id = ?"
_COUNT = "SELECT count(*) FROM histories WHERE user_id = ?"
_FORGET_EXPIRED = "DELETE FROM histories WHERE rowid = ? AND expires_at <= ?"
_HIDES = """SELECT user_id FROM histories WHERE rowid = ? AND expires_at <= ?
AND EXISTS (SELECT 1 FROM histories AS other WHERE other.user_id = histories.user_id AND other.rowid < histories.rowid)"""
_IS_LAST = """SELECT CAST(user_id AS BLOB) FROM histories WHERE rowid = ? AND expires_at <= ? AND typeof(user_id) = 'text'
AND NOT EXISTS (SELECT 1 FROM histories AS other WHERE other.user_id = histories.user_id AND other.rowid > histories.rowid)"""
_EMPTY = "UPDATE histories SET expires_at = NULL, checksum = :checksum, history = :history WHERE rowid = :row"
_ADD = "INSERT INTO histories VALUES (:user_id, :expires_at, :checksum, :history)"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(History)
_entries = msgspec.msgpack.Decoder(Entry)


class _Outline(msgspec.Struct, array_like=True):
    """A `History` whose entries are not decoded: most reads are of a few of them."""

    arrivals: int
    entries: list[msgspec.Raw]
    fallen: msgspec.Raw
    profile: Profile | None = None


_outlines = msgspec.msgpack.Decoder(_Outline)


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables of a new file, on a connection that writes, and from now on overwrites what it deletes.

    Raises sqlite3.DatabaseError, for a file of another format too.
    """
    reading_all(connection).execute("PRAGMA secure_delete = ON")
    make_tables(connection, _SCHEMA, _FORMAT)


def reading_all(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, which reads texts that are no UTF-8 any more as others: checksums tell it, where the file would pass for away."""
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def read_history(connection: sqlite3.Connection, user_id: str, now: float) -> History | None:
    """What is stored of a user; None for an unknown or forgotten one.

    Raises:
        HistoryDamaged: it is there and can't be read.
        sqlite3.DatabaseError: the file can't be used.
    """
    history = _read(connection, user_id, now, _decoder)
    return None if history is None or history.is_empty else history


def is_quickly_read(connection: sqlite3.Connection, user_id: str, count: int) -> bool:
    """Whether the newest `count` events of a user are quickly read, which is known without reading them. Raises sqlite3.DatabaseError."""
    row = connection.execute(_SIZE, {"user_id": user_id}).fetchone()
    stored = 0 if row is None else int(row[0])
    return stored <= _QUICK_BYTES and min(count, stored // _EVENT_BYTES) <= _QUICK_EVENTS


def read_newest(connection: sqlite3.Connection, user_id: str, now: float, count: int) -> StoredUser:
    """The profile of a user and the newest `count` events by time, oldest first. Raises as `read_history`."""
    history = _read(connection, user_id, now, _outlines)
    return StoredUser([]) if history is None else _newest(history, user_id, count)


def _newest(history: _Outline, user_id: str, count: int) -> StoredUser:
    entries = history.entries[max(0, len(history.entries) - count) :]
    try:
        return StoredUser([_entries.decode(entry).event() for entry in entries], history.profile)
    except (*UNDECODABLE, ValueError) as error:
        raise HistoryDamaged(user_id) from error


def random_rows(users: int, together: int, connection: sqlite3.Connection) -> list[int]:
    """The rows, ascending, from which groups of `together` are read to get `users` of them: all rows, or random ones if there are more."""
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM histories ORDER BY rowid LIMIT {users + 1}")]
    if len(rows) <= users:
        return rows[::together]
    ((last,),) = connection.execute("SELECT max(rowid) FROM histories")
    return sorted(random.randint(rows[0], last) for _ in range(-(-users // together)))


def read_some(start: int, now: float, users: int, count: int, connection: sqlite3.Connection) -> tuple[list[list[Event]], int]:
    """The newest `count` events of those with events among `users` users from a row on, and the row behind them."""
    found: list[list[Event]] = []
    after = start
    for row, user_id, is_there, checksum, content in connection.execute(_SCAN, {"start": start, "users": users, "now": now}):
        after = row + 1
        with suppress(HistoryDamaged):
            if is_there and (events := _newest(_decoded(user_id, checksum, content, _outlines), user_id, count).events):
                found.append(events)
    return found, after


def write_history(connection: sqlite3.Connection, user_id: str, history: History, expires_at: float | None) -> None:
    """Store what is known of a user in place of what is there. Raises sqlite3.DatabaseError."""
    row = _row(user_id, history) | {"expires_at": expires_at}
    if not connection.execute(_REPLACE, row).rowcount:
        connection.execute(_ADD, row)


def replace_content(connection: sqlite3.Connection, user_id: str, history: History) -> None:
    """As `write_history`, of a user who is there and whose time goes on. Raises sqlite3.DatabaseError."""
    connection.execute(_REPLACE_CONTENT, _row(user_id, history))


def forget_history(connection: sqlite3.Connection, user_id: str) -> None:
    """Delete what is stored of a user, if there is any. Raises sqlite3.DatabaseError."""
    connection.execute(_FORGET, (user_id,))


def forget_last(connection: sqlite3.Connection, user_id: str) -> None:
    """As `forget_history`, of a user whose last row can be read: where it hides another, it stays without anything in it."""
    ((rows,),) = connection.execute(_COUNT, (user_id,))
    if rows == 1:
        forget_history(connection, user_id)
    else:
        empty_history(connection, user_id)


def empty_history(connection: sqlite3.Connection, user_id: str) -> None:
    """Leave the last row of a user without anything in it. Raises sqlite3.DatabaseError."""
    write_history(connection, user_id, History(), None)


def bury_history(connection: sqlite3.Connection, user_id: str) -> None:
    """Put an empty history after the one of a user that can't be deleted. Raises sqlite3.DatabaseError."""
    connection.execute(_ADD, _row(user_id, History()) | {"expires_at": None})


def bury_row(connection: sqlite3.Connection, row: int, now: float) -> None:
    """As `bury_history`, of the user whose last row this is, if it has expired; of another row it is done already.

    Raises sqlite3.DatabaseError.
    """
    last = connection.execute(_IS_LAST, (row, now)).fetchone()
    if last is not None:
        # Under a name that damage has made none, nobody comes again.
        with suppress(UnicodeDecodeError):
            bury_history(connection, last[0].decode())


def forget_rows(connection: sqlite3.Connection, rows: Sequence[int], now: float) -> int:
    """Forget those of some rows that have expired; return their number. One that hides another of its user stays, without anything in it.

    Raises sqlite3.DatabaseError.
    """
    forgotten = 0
    for row in rows:
        hiding = connection.execute(_HIDES, (row, now)).fetchone()
        if hiding is None:
            forgotten += connection.execute(_FORGET_EXPIRED, (row, now)).rowcount
        else:
            forgotten += connection.execute(_EMPTY, _row(hiding[0], History()) | {"row": row}).rowcount
    return forgotten


def is_malformed(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite has met pages that make no sense; those of other histories may be whole, but not in the same transaction."""
    # Of this very class it raises nothing else.
    return type(error) is sqlite3.DatabaseError


def check(connection: sqlite3.Connection, path: Path, on_damage: DamageReport) -> None:
    """Read the whole file and report what does not fit together; it takes as long as the disk."""
    try:
        findings = [str(finding) for (finding,) in connection.execute(f"PRAGMA quick_check({_FINDINGS})")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return
        findings = [str(error)]
    if findings != ["ok"]:
        found = "; ".join(" ".join(finding.split()) for finding in findings)
        on_damage("file", f"The history file {path} is damaged ({found}): what can't be read is refused; bring back a copy of the file.")


def _read(connection: sqlite3.Connection, user_id: str, now: float, decoder: "msgspec.msgpack.Decoder[_T]") -> _T | None:
    try:
        row = connection.execute(_READ, {"user_id": user_id, "now": now}).fetchone()
    except sqlite3.DatabaseError as error:
        if is_malformed(error):
            raise HistoryDamaged(user_id) from error
        raise
    return None if row is None else _decoded(user_id, row[0], row[1], decoder)


def _decoded(user_id: str, checksum: int, content: object, decoder: "msgspec.msgpack.Decoder[_T]") -> _T:
    if not isinstance(content, bytes) or checksum != _checksum(user_id, content):
        raise HistoryDamaged(user_id)
    try:
        return decoder.decode(content)
    except UNDECODABLE as error:
        raise HistoryDamaged(user_id) from error


def _row(user_id: str, history: History) -> dict[str, str | int | float | bytes | None]:
    content = _encoder.encode(history)
    return {"user_id": user_id, "checksum": _checksum(user_id, content), "history": content}


def _checksum(user_id: str, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(user_id.encode()))
