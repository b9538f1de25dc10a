"""Turns that the workers of a test run take, so that a test which times something has the machine to itself.

Invariant: an exclusive turn begins when all others have ended, and none begins before it has ended. Who waits for one holds the gate, so
workers that take one shared turn after the other cannot keep it waiting. A test run that a test starts is part of that test's turn: it
takes none of its own, for it would wait behind an exclusive one that waits for the test to end.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GATE, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")


@contextmanager
def turn(exclusive: bool) -> Iterator[None]:
    """Hold a turn, alone or beside others; locks are on files that every checkout has, and end with their process."""
    # Pytest sets it while a test runs, and what the test starts inherits it.
    if "PYTEST_CURRENT_TEST" in os.environ:
        yield
        return
    with ROOM.open() as room:
        with GATE.open() as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        try:
            yield
        finally:
            # Closing would not do: a process that a test has forked holds the file as well.
            fcntl.flock(room, fcntl.LOCK_UN)
