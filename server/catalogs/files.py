"""The files of a directory of versions.

Invariant: the file of a version is named by the digest of its contents, so two never overwrite each other, and what is read under a name is
what was written. Files that are not finished have other names; those that a killed server has left behind are deleted at the next start,
unless another server uses the directory.
"""

import fcntl
import logging
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from drafting.catalog.artefact import DIGEST_PREFIX, SUFFIX, digest_name
from drafting.mapped_arrays import PART_SUFFIX
from server.catalogs.journal import sync_directory
from server.errors import StorageFull

_UNFINISHED = ".unfinished-"

logger = logging.getLogger(__name__)


class VersionFiles:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    def brought(self) -> dict[str, Path]:
        """Artefacts that somebody has put here, and those of earlier releases, by the name of their version."""
        paths = (path for path in sorted(self.directory.glob(f"[!.]*{SUFFIX}")) if not path.name.startswith(DIGEST_PREFIX))
        return {path.stem: path for path in paths if path.is_file()}

    def unfinished(self, suffix: str = SUFFIX) -> Path:
        """A name that no other file has."""
        return self.directory / f"{_UNFINISHED}{os.urandom(8).hex()}{suffix}"

    def publish(self, unfinished: Path, digest: str) -> Path:
        """Give a finished file its name; when it returns it is on the disk.

        Raises:
            StorageFull: it can't be written.
        """
        path = self.directory / digest_name(digest)
        try:
            unfinished.replace(path)
            sync_directory(self.directory)
        except OSError as error:
            raise StorageFull(f"The catalog can't be stored: {error.strerror}.") from error
        return path

    def delete(self, path: Path) -> None:
        """Delete a file, if it is there.

        Raises:
            StorageFull: it can't be deleted.
        """
        try:
            path.unlink(missing_ok=True)
            sync_directory(self.directory)
        except OSError as error:
            raise StorageFull(f"The file of the version can't be deleted: {error.strerror}.") from error

    def discard(self, path: Path) -> None:
        """Delete a file that nothing names; one that can't be deleted is left for the next start."""
        with suppress(OSError):
            path.unlink(missing_ok=True)
            # Of a process that was killed while it wrote.
            path.with_name(f"{path.name}{PART_SUFFIX}").unlink(missing_ok=True)

    def clean(self, named: Collection[str] | None) -> None:
        """Delete what a killed server has left behind: unfinished files, and finished ones that are not `named` if that is known."""
        try:
            self._lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self.directory.iterdir():
                is_finished = path.name.startswith(DIGEST_PREFIX) and path.suffix == SUFFIX
                stale = is_finished and named is not None and path.name not in named
                if stale or path.name.startswith(_UNFINISHED):
                    logger.info("deleting %s, which a server has left behind", path)
                    self.discard(path)
        except BlockingIOError:
            logger.debug("nothing is cleaned up in %s: a server uses it, as this one its own temporary one", self.directory)
        except OSError as error:
            logger.info("nothing is cleaned up in %s: %s", self.directory, error.strerror)
        finally:
            if self._lock is not None:
                with suppress(OSError):
                    fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let others clean up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
