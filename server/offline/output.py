"""A file of lines that is written in one go or in several.

Invariant: the file appears under its name only when it is complete. Until then its lines are in `NAME.part`, and `NAME.part.json` says what
they are the lines of; only a run of the same purpose continues them. A line that was cut off in the middle is written again. A table is
made of its lines when they are complete.

Lines for users from a pipe are never continued, because the users can't be told from those of another pipe. One run at a time writes a
file: it holds the lock of `NAME.part`, which ends with its process, until the file has its name.
"""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from drafting.errors import SetupError
from drafting.undecodable import UNDECODABLE
from server.offline.made import Made
from server.offline.tables import write_table

_PART, _STATE, _TABLE = ".part", ".part.json", ".part.table"
# File systems that have no locks (Lustre without `flock`) still hold files.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class OutputError(SetupError):
    """Lists that can't be written; the message is a sentence."""


class RunState(msgspec.Struct):
    """The state of an unfinished run.

    Attributes:
        purpose: everything that the lines follow from.
        seed: drawn by chance in the first run; the next must not draw anew.
        failure: what a run that is over and has made no list at all says; empty for any other run.
    """

    purpose: str
    seed: int
    failure: str = ""


def names_written(name: str) -> tuple[str, ...]:
    """The names of the files that a `ResumableFile` of this name has beside each other, itself first."""
    return name, name + _PART, name + _STATE, name + _TABLE


class PlainLines:
    """Lines that go somewhere in one go, as a context: to a pipe, to a terminal, or from a pipe that can't be read again.

    Attributes:
        done: complete lines that an earlier run has left.
        made: what the users of these lines got.
        seed: the earlier run's seed, or the one that was given.
        continuation: a sentence that says how an interrupted run is continued.
    """

    continuation = "What comes from or goes to a pipe can only be begun anew."

    def __init__(self, file: BinaryIO, seed: int, done: int = 0, made: Made | None = None) -> None:
        self._file = file
        self.seed = seed
        self.done = done
        self.made = made or Made()

    def write(self, line: bytes) -> None:
        """Add a line.

        Raises:
            OutputError: it can't be written.
        """
        with self._explained():
            self._file.write(line + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # What went wrong before is what is told, and not that the rest can't be written either.
        with self._explained() if kind is None else suppress(OSError):
            self._file.flush()
            if self._file is not sys.stdout.buffer:
                self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Whoever read has enough: the command line ends the process without a word.
            raise
        except OSError as error:
            raise OutputError(f"The lists can't be written: {error.strerror}. {self.continuation}") from error


class ResumableFile(PlainLines):
    """Lines that end up in a file; leaving the context by an exception keeps the part, if it can be gone on with."""

    def __init__(self, path: Path, purpose: str | None, seed: int, is_table: bool = False) -> None:
        """Go on with what is there for the same purpose, else begin anew.

        Args:
            purpose: everything that the lines follow from; None where nobody can say it, as with users of a pipe.
            is_table: True to make a table of the lines.

        Raises:
            OutputError: another run writes it.
            OSError: the folder can't be written to.
        """
        # Behind a symbolic link, the file that it names is the one to replace.
        self._path = path.resolve()
        self._is_table = is_table
        if purpose is not None:
            self.continuation = "The same command goes on from here."
        _, part, state, table = names_written(self._path.name)
        self._part, self._state, self._table = (self._path.with_name(name) for name in (part, state, table))
        file = _locked(self._part, path)
        # True until the part has the file's name, or none: from then on what is called a part may be another run's.
        self._has_part = True
        known, done, made = _read(self._state), 0, Made()
        if known is not None and known.purpose == purpose:
            seed = known.seed
            done, made = _cut(self._part)
        else:
            file.truncate(0)
            self._state.unlink(missing_ok=True)
            if purpose is not None:
                self._write_state(purpose, seed)
        self._purpose = purpose
        super().__init__(file, seed, done, made)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                with self._explained():
                    self._finish()
        finally:
            if self._has_part and self._purpose is None:
                self._part.unlink(missing_ok=True)
            # The lock ends here. A write that failed is tried once more, and has been told.
            with suppress(OSError):
                self._file.close()

    def _finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._is_table:
            self._make_table()
        # While the part has its name, nobody else has a state.
        self._state.unlink(missing_ok=True)
        try:
            self._part.unlink() if self._is_table else self._part.replace(self._path)
        except OSError:
            if self._purpose is not None:
                self._write_state(self._purpose, self.seed)
            raise
        self._has_part = False

    def _write_state(self, purpose: str, seed: int) -> None:
        self._state.write_bytes(msgspec.json.encode(RunState(purpose, seed)))

    def _make_table(self) -> None:
        try:
            with self._part.open("rb") as lines, self._table.open("wb") as file:
                write_table(lines, file)
                file.flush()
                os.fsync(file.fileno())
            self._table.replace(self._path)
        finally:
            self._table.unlink(missing_ok=True)


def _locked(part: Path, path: Path) -> BinaryIO:
    """The part of a file, to append to, which nobody else opens so until it is closed."""
    while True:
        file = part.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise OutputError(f"Another run writes {path}: wait for it, or choose another --output.") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
        # Between the two, another run may have finished, and this is its file.
        with suppress(FileNotFoundError):
            if os.path.samestat(part.stat(), os.fstat(file.fileno())):
                return file
        file.close()


def _read(path: Path) -> RunState | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunState)
    except (OSError, *UNDECODABLE):
        return None


def _cut(path: Path) -> tuple[int, Made]:
    """Cut off what follows the last complete line, and count the lines that stay, and what their users got."""
    lines, end, made = 0, 0, Made()
    with path.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                lines += 1
                end += len(line)
                made += Made.of_lines([line])
        file.truncate(end)
    return lines, made
