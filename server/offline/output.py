"""A file of lines that is written in one go or in several.

Invariant: the file appears under its name only when it is complete. Until then its lines are in `NAME.part`, and `NAME.part.json` says what
they are the lines of; only the same purpose goes on from there. A line that was cut off in the middle is written again.
"""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec


class _State(msgspec.Struct):
    """What a part is the beginning of.

    Attributes:
        purpose: everything that the lines follow from.
        seed: what the first run drew by chance, and the next must not draw anew.
    """

    purpose: str
    seed: int


class ResumableFile:
    """Lines that end up in a file, as a context; leaving it by an exception keeps the part.

    Attributes:
        done: complete lines that an earlier run has left.
        seed: the earlier run's seed, or the one that was given.
    """

    def __init__(self, path: Path, purpose: str, seed: int) -> None:
        """Goes on with what is there for the same purpose, else begins anew.

        Raises:
            OSError: the folder can't be written to.
        """
        # Behind a symbolic link, the file that it names is the one to replace.
        self._path = path.resolve()
        self._part = self._path.with_name(f"{self._path.name}.part")
        self._state = self._path.with_name(f"{self._path.name}.part.json")
        known = _read(self._state)
        if known is not None and known.purpose == purpose and self._part.is_file():
            self.seed = known.seed
            self.done = _cut(self._part)
        else:
            self.seed, self.done = seed, 0
            self._part.unlink(missing_ok=True)
            self._state.write_bytes(msgspec.json.encode(_State(purpose, seed)))
        self._file: BinaryIO = self._part.open("ab")

    @property
    def how_to_go_on(self) -> str:
        """A sentence."""
        return "The same command goes on from here."

    def write(self, line: bytes) -> None:
        """Adds a line."""
        self._file.write(line + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
            self._state.unlink(missing_ok=True)


class PlainLines:
    """Lines that go somewhere in one go: to a pipe, to a terminal, or from a pipe that can't be read again.

    Attributes:
        done, seed: as of `ResumableFile`.
    """

    done = 0

    def __init__(self, file: BinaryIO, seed: int) -> None:
        self._file = file
        self.seed = seed

    @property
    def how_to_go_on(self) -> str:
        """A sentence."""
        return "What comes from or goes to a pipe can only be begun anew."

    def write(self, line: bytes) -> None:
        """Adds a line."""
        self._file.write(line + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.flush()
        if self._file is not sys.stdout.buffer:
            self._file.close()


def _read(path: Path) -> _State | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_State)
    except (OSError, msgspec.DecodeError):
        # Nothing that can be gone on with: the run begins anew.
        return None


def _cut(path: Path) -> int:
    """Cuts off what follows the last complete line, and counts those that stay."""
    lines = end = 0
    with path.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                lines += 1
                end += len(line)
        file.truncate(end)
    return lines
