"""Times to live of users who are in a SQLite file already: a reader finds whom to limit, and then a transaction limits them.

Invariant: damage keeps only the users of the damaged pages from being limited, and, because a row that gets an end grows, some of those on
pages beside. Rows that a damaged page hides are found by the index of users, and the rows of a transaction that meets such a page are
limited one by one.

If a user has several rows, none of them gets an end: the last row hides the others, which can't be deleted, so without it a deleted user
would be back.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from server.histories.sqlite_file import is_malformed

_LONGER = "(expires_at IS NULL OR expires_at > :until)"
_FIND = f"SELECT rowid, {_LONGER} FROM histories WHERE rowid > :after ORDER BY rowid LIMIT :users"
# The sign keeps SQLite from the table, which is in the order of these.
_FIND_BY_USER = "SELECT rowid, TRUE FROM histories INDEXED BY histories_by_user WHERE +rowid > :after ORDER BY +rowid LIMIT :users"
_LIMIT = f"""UPDATE histories SET expires_at = :until WHERE rowid > :after AND rowid <= :last AND {_LONGER}
AND NOT EXISTS (SELECT 1 FROM histories AS other WHERE other.user_id = histories.user_id AND other.rowid <> histories.rowid)"""

# Makes a transaction of a call, until a deadline.
Transaction = Callable[[Callable[[], int], float], int]


def find_longer(until: float, after: int, users: int, connection: sqlite3.Connection) -> tuple[list[int], bool]:
    """So many rows behind a row, fewer at the end alone, and whether any of them may stay longer than until then.

    Raises sqlite3.DatabaseError.
    """
    chosen = {"until": until, "after": after, "users": users}
    try:
        found = connection.execute(_FIND, chosen).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_malformed(error):
            raise
        found = connection.execute(_FIND_BY_USER, chosen).fetchall()
    return [row for row, _ in found], any(is_longer for _, is_longer in found)


def limit_lives(
    transaction: Transaction, connection: sqlite3.Connection, until: float, rows: Sequence[int], deadline: float
) -> tuple[int, int]:
    """Have those of some rows go by then who would stay longer; return their number, and that of rows which damage keeps from it.

    Raises sqlite3.DatabaseError.
    """
    limited = passed = 0
    try:
        return transaction(partial(_limit, connection, until, rows[0] - 1, rows[-1]), deadline), 0
    except sqlite3.DatabaseError as error:
        if not is_malformed(error):
            raise
    for row in rows:
        try:
            limited += transaction(partial(_limit, connection, until, row - 1, row), deadline)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            passed += 1
    return limited, passed


def _limit(connection: sqlite3.Connection, until: float, after: int, last: int) -> int:
    changed: Any = connection.execute(_LIMIT, {"until": until, "after": after, "last": last})
    count: int = changed.rowcount
    return count
