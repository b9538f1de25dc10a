"""The journal that servers of earlier releases kept in a directory of versions: read once, to fill a control store that is empty.

Invariant: a line that is cut off or can't be read does not count, and is said; nothing is written here any more.
"""

import logging
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from drafting.undecodable import UNDECODABLE
from server.control.records import Activation, LeftVersion, Record, Start, VersionRecord
from server.try_again import FilesUnavailable

HISTORY_FILE = "activations.jsonl"
BY_START = "start"
BY_RESTART = "restart"

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
        event: its kind; old lines have none, and are of a start or an activation.
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


class Journal:
    """The journal of a directory.

    Attributes:
        record: what it comes to.
    """

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            FilesUnavailable: there is one that can't be read.
        """
        self._path = directory / HISTORY_FILE
        self.record = Record()
        for line in self._read():
            self._take(line)

    def _take(self, line: Line) -> None:
        record = self.record
        if line.event is Event.REMOVED:
            record.versions.pop(line.version, None)
            return
        if line.file is not None:
            record.versions[line.version] = VersionRecord(line.file, line.at)
        if line.event is Event.ADDED:
            return
        record.activations[len(record.activations) + 1] = Activation(line.version, line.by, line.at)
        record.left.pop(line.version, None)
        if line.left is not None:
            record.left[line.left] = LeftVersion(line.left, line.at, line.reason)
        if line.starts and line.by == BY_START:
            record.began[line.version] = Start(line.at)

    def _read(self) -> Iterator[Line]:
        try:
            texts = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as error:
            raise FilesUnavailable(f"The journal of the catalog's versions ({HISTORY_FILE}) can't be read: {error.strerror}.") from error
        for text in filter(None, texts):
            try:
                yield msgspec.json.decode(text, type=Line)
            except UNDECODABLE:
                logger.warning("%s holds a line that can't be read", self._path)
