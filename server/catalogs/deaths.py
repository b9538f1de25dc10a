"""`Deaths`: what a server knows of engines that died with the version that it serves; `DeathFile` keeps it where it outlives the server.

Invariant: before an engine is started, and about once a second while one serves, the file says what has to be known if the server is killed
now: the engine that would die with it is counted already. Reason: a container that meets its limit of memory is killed as a whole, and
nobody is left to count. A server that is told to end, or ends by itself, takes its file away before it ends.

A file that can't be read or written keeps no server from serving: then less is known after a kill.
"""

import logging
import socket
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from drafting.undecodable import UNDECODABLE

DEATHS = ".engines-"
# A file that is in use is never so old that another server takes it for one that was left behind (`server.catalogs.tidying`).
AGAIN_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class Deaths(msgspec.Struct, frozen=True):
    """What is known of a version.

    Attributes:
        version: version of its contents.
        count: engines that died with it while they started, or soon after.
        proven: True once it has served for long.
        tried: True once another version was to be tried, until an engine comes up with this one again.
    """

    version: str
    count: int = 0
    proven: bool = False
    tried: bool = False


class DeathFile:
    """The file of one server."""

    def __init__(self, path: Path | None) -> None:
        """`path` is None where nothing is kept."""
        self._path = path
        self._written: Deaths | None = None
        self._written_at = 0.0
        # True once the log was told that it can't be written, until it can.
        self._is_told = False

    @classmethod
    def of(cls, directory: Path | None, host: str, port: int) -> "DeathFile":
        """The file of the server that listens there.

        Args:
            directory: outlives the server, and others may share it; None if there is none such, and nothing is kept.
            port: 0 for a server that takes any free one: it is not known again when it is started again, so nothing is kept.
        """
        return cls(directory / f"{DEATHS}{socket.gethostname()}-{host}-{port}" if directory is not None and port else None)

    def read(self, version: str) -> Deaths:
        """What is known of a version from before this server was started."""
        unknown = Deaths(version)
        try:
            known = unknown if self._path is None else msgspec.json.decode(self._path.read_bytes(), type=Deaths)
        except (OSError, *UNDECODABLE):
            return unknown
        return known if known.version == version else unknown

    def write(self, deaths: Deaths) -> None:
        """Keep what is known now."""
        now = time.monotonic()
        if self._path is None or (deaths == self._written and now - self._written_at < AGAIN_SECONDS):
            return
        self._written, self._written_at = deaths, now
        try:
            self._path.write_bytes(msgspec.json.encode(deaths))
            self._is_told = False
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                logger.warning(
                    "if this server is killed, engines that died are forgotten: %s can't be written: %s", self._path, error.strerror
                )

    def forget(self) -> None:
        """Take the file away, and write no other."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None
