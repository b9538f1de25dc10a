"""SQLite files of stores: making and opening them.

Invariant: a file and those beside it (`-wal`, `-shm`) are readable by their owner alone, from their creation on. Write-ahead logging lets
readers read whatever a writer, here or in another process, holds, and a commit is on the disk when it returns.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_OWNER_ONLY = 0o600
_CACHE_KIB = 256


def file_of(url: str, purpose: str) -> Path:
    """The path of `sqlite:///relative/path`, `sqlite:////absolute/path` or `sqlite:///~/path`; `purpose` is what the URL is for.

    Raises:
        ValueError: the URL names no file.
    """
    name = url.removeprefix("sqlite:///")
    if name == url or name in ("", ":memory:"):
        raise ValueError(
            f"The {purpose} URL {url} names no file: use sqlite:///relative/path or sqlite:////absolute/path, or memory:// for none."
        )
    return Path(name).expanduser()


def create(path: Path) -> None:
    """Create the file with its folder, or take from others what they may do with the one that is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives the files beside it the permissions of the file itself.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & ~_OWNER_ONLY and file.stat().st_uid == os.geteuid():
            file.chmod(_OWNER_ONLY)


def open_writer(path: Path, timeout_seconds: float, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """Open a connection that writes; `prepare` creates the tables of a new file, without a lock where they are there already.

    Raises:
        sqlite3.DatabaseError: the file can't be used.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return _open_writer(path, timeout_seconds, prepare)
        except sqlite3.OperationalError as error:
            # SQLite itself does not wait while another process, started at the same moment, switches the file to write-ahead logging.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def open_reader(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """Open a connection that only reads, which no writer keeps waiting."""
    connection = _connect(path, timeout_seconds)
    connection.execute("PRAGMA query_only = ON")
    return connection


def data_version(connection: sqlite3.Connection) -> int | None:
    """A number that another connection's commit changes, by whichever process; None where it can't be had without waiting.

    It lies in memory that all processes share. Call it with a connection for nothing else, which waits for no lock.
    """
    try:
        ((version,),) = connection.execute("PRAGMA data_version")
    except sqlite3.DatabaseError:
        return None
    return int(version)


def open_unchanging(path: Path) -> sqlite3.Connection:
    """Open a file that nobody can change, on a file system that is read-only; what would change it fails."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None, check_same_thread=False)


def make_tables(connection: sqlite3.Connection, schema: Sequence[str], form: int) -> None:
    """Create the tables of a new file, on a connection that writes.

    Args:
        schema: statements, the last of which sets the number of the format, `form`.

    Raises:
        sqlite3.DatabaseError: it can't be done, or the file is something else, or of another format.
    """
    # A file of this format needs no lock, so a server starts beside a writer.
    if _format(connection) == form:
        return
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        match _format(connection):
            case 0:
                _check_new(connection)
                for statement in schema:
                    connection.execute(statement)
            case found if found == form:
                pass  # Another process was quicker.
            case found:
                raise sqlite3.DatabaseError(f"its format is {found}, and this release writes {form}")


def _format(connection: sqlite3.Connection) -> int:
    """The number of the file's format; 0 for a new file."""
    ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def _check_new(connection: sqlite3.Connection) -> None:
    """Check that a file without a format holds nothing. Raises sqlite3.DatabaseError."""
    if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError("it holds tables of something else")


def _open_writer(path: Path, timeout_seconds: float, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    connection = _connect(path, timeout_seconds)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    # Opened on one thread and then used on another, but never on two at once, so the same-thread check is not needed.
    connection = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False)
    # The operating system caches the pages of the file as well; SQLite's own cache would only take memory.
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection
