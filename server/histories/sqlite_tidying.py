"""`Tidying`: what leaves a history file for good: rows that have expired, and the copies that are left of deleted rows.

Invariant: once a deletion is answered, its bytes are neither in the file nor in its log. The exception is a reader that held the log just
then, or less than a second before: the bytes then leave at a later look.

Reason: SQLite overwrites what it deletes (`secure_delete`), but the log (`-wal`) keeps pages as they were until it is emptied. Emptying it
is a job of its own behind those that wait already, so it is done once for all deletions among them, and each is answered after it. A reader
that holds the log keeps writes waiting once a second at most. Not covered is what SQLite leaves of a row that it once moved to another
page, which only a `VACUUM` removes.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from server.histories.sqlite_file import bury_history, bury_row, empty_history, forget_rows, is_malformed

LOOK_SECONDS = 60.0
_EXPIRED_AT_ONCE = 200
_EXPIRY_SECONDS = 0.05
# Readers are gone within milliseconds; those of another process that are not must not keep writes waiting, nor every deletion again.
_PATIENCE_MS = 50
_HELD_SECONDS = 1.0

_EXPIRED = "SELECT rowid FROM histories WHERE expires_at <= ? LIMIT ?"

_T = TypeVar("_T")

Transaction = Callable[[Callable[[], Any], float], Any]


class Tidying:
    """Removes expired rows, and copies of deleted ones, from one file; its methods run on the thread that writes the file."""

    def __init__(self, writer: sqlite3.Connection, transaction: Transaction) -> None:
        """`writer` is the connection that writes the file; `transaction` runs a call as a transaction of it, until a deadline."""
        self._writer, self._transaction = writer, transaction
        self._next_expiry = self._next_emptying = 0.0
        # Rows that have expired and are too damaged to be deleted.
        self._kept: set[int] = set()
        # A process before this one may have been killed between the two.
        self._is_log_full = True

    def look(self, deadline: float) -> bool:
        """Forget some who have expired, and empty the log once there are no more; return True if there may be more."""
        # What can't be done now is done at another look; whoever uses the file is told what is wrong with it.
        with suppress(sqlite3.DatabaseError):
            if self._forget_some(deadline):
                return True
            if self._is_log_full:
                self._empty_log()
        return False

    def forget_expired(self, deadline: float) -> None:
        """Forget some who have expired, now and then. Raises sqlite3.DatabaseError."""
        if time.monotonic() >= self._next_expiry:
            self._next_expiry = time.monotonic() + _EXPIRY_SECONDS
            self._forget_some(deadline)

    def erase(self, call: Callable[[], _T]) -> _T:
        """What a call answers that may delete: the log keeps copies of that until it is emptied."""
        changes = self._writer.total_changes
        try:
            return call()
        finally:
            self._is_log_full |= self._writer.total_changes != changes

    def bury(self, user_id: str, deadline: float) -> None:
        """Leave nothing that is read of a user of whom damage keeps a row. Raises sqlite3.DatabaseError."""
        try:
            # Whole rows come to lie behind damaged ones.
            self._transaction(partial(empty_history, self._writer, user_id), deadline)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            self._transaction(partial(bury_history, self._writer, user_id), deadline)

    def empty_log(self) -> None:
        """Leave no copy of what was deleted in the log, if there is any; a later look does where that can't be done now."""
        if self._is_log_full and time.monotonic() >= self._next_emptying:
            self._empty_log()

    def _empty_log(self) -> None:
        """Bring what the log holds into the file, and leave no byte in it."""
        with suppress(sqlite3.DatabaseError):
            self._writer.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            ((is_held, *_),) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._is_log_full = bool(is_held)
        if self._is_log_full:
            self._next_emptying = time.monotonic() + _HELD_SECONDS

    def _forget_some(self, deadline: float) -> bool:
        """Forget some who have expired; return True if there may be more."""
        now = time.time()
        try:
            found = self._writer.execute(_EXPIRED, (now, len(self._kept) + _EXPIRED_AT_ONCE)).fetchall()
        except sqlite3.DatabaseError as error:
            # A damaged index must not keep others from appending.
            if not is_malformed(error):
                raise
            return False
        rows = [row for row in dict.fromkeys(row for (row,) in found) if row not in self._kept]
        forgotten = self._forget(rows, now, deadline) if rows else 0
        # A damaged index may have entries without a row, which stay.
        return forgotten > 0 or not self._kept.isdisjoint(rows)

    def _forget(self, rows: Sequence[int], now: float, deadline: float) -> int:
        """Forget those of some rows that have expired; return their number. What damage keeps costs no other, nor is it tried again."""
        try:
            forgotten: int = self.erase(partial(self._transaction, partial(forget_rows, self._writer, rows, now), deadline))
            return forgotten
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
        if len(rows) == 1:
            self._hide(rows[0], now, deadline)
            return 0
        middle = len(rows) // 2
        return self._forget(rows[:middle], now, deadline) + self._forget(rows[middle:], now, deadline)

    def _hide(self, row: int, now: float, deadline: float) -> None:
        """Leave a row that damage keeps, behind which its user can be stored anew; another process may have done so by now."""
        try:
            self._transaction(partial(bury_row, self._writer, row, now), deadline)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
        self._kept.add(row)
