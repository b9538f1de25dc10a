"""The journal of a directory of versions: which versions there are, what has been served, by whom and when.

Invariant: what the journal says is on the disk before anybody is told, and it says all of it or nothing: one line holds all that takes
effect together, a write that fails is taken back, and a line that is cut off does not count. So a server that is killed at any moment finds
everything that was acknowledged, and nothing by halves.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from server.errors import StorageFull

HISTORY_FILE = "activations.jsonl"
BY_START = "start"
BY_RESTART = "restart"
BY_RECOVERY = "recovery"

logger = logging.getLogger(__name__)


class Event(StrEnum):
    """The kinds of lines."""

    ADDED = "added"
    REMOVED = "removed"
    ACTIVATED = "activated"
    STARTED = "started"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the journal.

    Attributes:
        version: name of the version that was added, removed or served from then on.
        by: origin of what happened.
        at: seconds since 1970.
        event: its kind; lines of earlier releases have none, and are of a start or an activation.
        file: name of the version's file in the directory; None if it lies elsewhere.
        left: name of the version that was served before and is not to be trusted any more; None as a rule.
        reason: why it was left.
    """

    version: str
    by: str
    at: float
    event: Event | None = None
    file: str | None = None
    left: str | None = None
    reason: str = ""

    @property
    def starts(self) -> bool:
        """True if a server has started with the version."""
        return self.event is Event.STARTED or (self.event is None and self.by in (BY_START, BY_RESTART))


class Activation(msgspec.Struct, frozen=True):
    """One entry of the history.

    Attributes:
        version: version served from then on.
        by: origin of the activation.
        at: seconds since 1970.
    """

    version: str
    by: str
    at: float


class LeftVersion(msgspec.Struct, frozen=True):
    """A version that the server has left by itself.

    Attributes:
        at: seconds since 1970.
        reason: a sentence.
    """

    version: str
    at: float
    reason: str


@dataclass
class Record:
    """The state that the lines of a journal come to.

    Attributes:
        files: names of the versions' files, by version.
        history: all activations, oldest first.
        left: versions that were left, and not activated since.
        began: version of the catalog that a server was last started with, as its options say; None if none was.
    """

    files: dict[str, str] = field(default_factory=dict)
    history: list[Activation] = field(default_factory=list)
    left: dict[str, LeftVersion] = field(default_factory=dict)
    began: str | None = None

    def take(self, line: Line) -> None:
        """Take in the next line."""
        if line.event is Event.REMOVED:
            self.files.pop(line.version, None)
            return
        if line.file is not None:
            self.files[line.version] = line.file
        if line.event is Event.ADDED:
            return
        self.history.append(Activation(line.version, line.by, line.at))
        self.left.pop(line.version, None)
        if line.left is not None:
            self.left[line.left] = LeftVersion(line.left, line.at, line.reason)
        if line.starts and line.by == BY_START:
            self.began = line.version

    def served_before(self, version: str) -> Iterator[str]:
        """The other versions that have been served and not left, the newest first."""
        for name in dict.fromkeys(entry.version for entry in reversed(self.history)):
            if name != version and name not in self.left:
                yield name


class JournalError(ValueError):
    """A journal that can't be read; the message is a sentence."""


class Journal:
    """The journal of a directory, and the record that it comes to.

    Attributes:
        is_whole: True if there was one, and every line of it could be read.
    """

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            JournalError: there is one that can't be read.
        """
        self.path = directory / HISTORY_FILE
        self.record = Record()
        # Without its whole journal, a directory does not tell which files are needed.
        self.is_whole = self.path.exists()
        self._late = b""
        for line in self._read():
            self.record.take(line)

    def append(self, line: Line) -> None:
        """Write a line; when it returns it is on the disk.

        Raises:
            StorageFull: it can't be written, and does not count.
        """
        try:
            self._write(self._late + _encode(line))
        except OSError as error:
            raise StorageFull(f"The change can't be stored: {error.strerror}.") from error
        self._late = b""
        self.record.take(line)

    def append_late(self, line: Line) -> None:
        """Write a line that a server would come to again after a restart; where that fails, it is written with the next one."""
        try:
            self.append(line)
        except StorageFull as error:
            logger.warning("%s: %s It is tried again with the next change.", self.path, error)
            self._late += _encode(line)
            self.record.take(line)

    def _write(self, data: bytes) -> None:
        new = not self.path.exists()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Another server in this directory must not write between this write and its being taken back.
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
                if new:
                    sync_directory(self.path.parent)
            except OSError:
                os.ftruncate(file, size)
                raise
        finally:
            os.close(file)

    def _read(self) -> Iterator[Line]:
        try:
            texts = self.path.read_bytes().splitlines() if self.path.exists() else []
        except OSError as error:
            raise JournalError(f"The journal of the catalog's versions, {self.path}, can't be read: {error.strerror}.") from error
        for text in filter(None, texts):
            try:
                yield msgspec.json.decode(text, type=Line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                logger.warning("%s holds a line that can't be read", self.path)
                self.is_whole = False


def _encode(line: Line) -> bytes:
    # The line break comes first, so that a line that was cut off spoils none after it.
    return b"\n" + msgspec.json.encode(line)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk.

    Raises:
        OSError: they can't be written.
    """
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
