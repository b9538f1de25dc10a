"""Temporary directories that are gone with the process that made them, however it ends.

Invariants: a directory is locked by its owner as long as that lives, and the kernel releases the lock when the owner is killed. So an
unlocked directory was left by a dead process, whatever namespace its process id is from, and it is removed when the next directory is made.
Only directories that bear `PREFIX` and belong to this user are ever removed.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.engine.shared_memory import remove_noted

PREFIX = "atspeed-run-"


@contextmanager
def own_directory() -> Iterator[Path]:
    """An empty directory for this process alone, removed when the context ends.

    Raises:
        OSError: none can be made.
    """
    _sweep()
    path, lock = _make()
    try:
        yield path
    finally:
        _remove(path, lock)


def _make() -> tuple[Path, int]:
    """A locked directory, and the descriptor that holds the lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        if (lock := _lock(path)) is not None:
            return path, lock


def _sweep() -> None:
    """Remove what processes that are dead have left behind."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (lock := _lock(path)) is not None:
            _remove(path, lock)


def _remove(path: Path, lock: int) -> None:
    remove_noted(path)
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _lock(path: Path) -> int | None:
    """Lock a directory of this user; None if somebody else holds it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between its making and its lock another process may have taken it for rubbish.
        found = path.stat(follow_symlinks=False)
        if found.st_uid == os.getuid() and found.st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
