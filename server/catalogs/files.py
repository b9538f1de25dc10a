"""The files of the versions: in a directory, or in an object store that all replicas see and a cache of this one.

Invariant: the file of a version is named by the digest of its contents, so two never overwrite each other, and what is read under a name is
what was written. Files that are not finished have other names; those that a killed server has left behind are deleted at the next start,
unless another server uses the directory. What is fetched gets its name when its contents have the digest that they must have.
"""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from drafting.cache import force_to_disk
from drafting.catalog.artefact import DIGEST_PREFIX, SUFFIX, check_digest, digest_name, save_artefact
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.errors import quoted
from drafting.mapped_arrays import PART_SUFFIX
from server.errors import StorageFull, UnknownFile
from server.try_again import FileGone, FilesUnavailable

if TYPE_CHECKING:
    from server.catalogs.object_files import ObjectFiles

UNFINISHED = ".unfinished-"
# For so long a file that no version is in stays: another server may have stored it, and be about to name it.
KEPT_SECONDS = 3600.0
SCHEMES = ("s3", "gs", "az", "file")
FETCHES = 3
FIRST_PAUSE_SECONDS = 0.2
PATIENCE_SECONDS = 15.0

logger = logging.getLogger(__name__)


def open_objects(url: str | None) -> "ObjectFiles | None":
    """The object store of a URL; None for None.

    Raises:
        ValueError: it is no URL of a store.
    """
    if url is None:
        return None
    if url.partition("://")[0] not in SCHEMES:
        raise ValueError(f"The URL of an object store begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}; got {url}.")
    if set(url) & set("?#@"):
        # obstore passes over what stands behind a question mark, and this message is no place for a password.
        raise ValueError("The URL of an object store has neither user nor options: credentials and options come from the environment.")
    # Importing obstore takes memory and time, which servers without an object store need not give.
    from server.catalogs.object_files import ObjectFiles

    return ObjectFiles(url)


class VersionFiles:
    """The files as one server sees them.

    Attributes:
        directory: where this server has them: the directory of the versions, or its cache of the object store.
    """

    def __init__(self, directory: Path, objects: "ObjectFiles | None" = None, *, is_shared: bool = False) -> None:
        """
        Args:
            objects: where all replicas find them; None if that is the directory.
            is_shared: True if replicas of other machines are to find here what this one publishes.
        """
        self.directory, self.objects, self.is_shared = directory, objects, is_shared
        # Versions, which are to be served now, and what clients have versions made of, which may be large: each one at a time.
        self._fetching, self._fetching_source = asyncio.Lock(), asyncio.Lock()
        self._lock: int | None = None

    def brought(self) -> dict[str, Path]:
        """Artefacts that somebody has put here, by the name of their version: those with names of their own, and not of a digest."""
        paths = (path for path in sorted(self.directory.glob(f"[!.]*{SUFFIX}")) if not path.name.startswith(DIGEST_PREFIX))
        return {path.stem: path for path in paths if path.is_file()}

    def unfinished(self, suffix: str = SUFFIX) -> Path:
        """A name that no other file has."""
        return self.directory / f"{UNFINISHED}{os.urandom(8).hex()}{suffix}"

    async def local(self, file_name: str, digest: str | None, version: str) -> Path:
        """The path of a file on this machine; it is fetched if it is not here, and used now if it is (`server.catalogs.tidying`).

        Args:
            digest: the digest that its contents must have; None if they are not compared.
            version: name of the version that needs it.

        Raises:
            FilesUnavailable: it can't be fetched, now or (`FileGone`) at all; the sentence names the version and says why.
        """
        path = self.directory / file_name
        if self.objects is not None and not _use(path):
            async with self._fetching:
                if not _use(path):
                    await self._fetch(self.objects, file_name, path, digest, f"of version {quoted(version)} ")
        return path

    @asynccontextmanager
    async def source(self, name: str) -> AsyncIterator[Path]:
        """A file that somebody has put beside the versions, of any form, for as long as it is needed.

        Raises:
            UnknownFile: there is none of that name, or it lies elsewhere.
            FilesUnavailable: it can't be fetched now.
        """
        if self.objects is None:
            yield self._beside(name)
            return
        copy: Path | None = None
        try:
            # One at a time: a store that is silent must not take all threads.
            async with self._fetching_source:
                if not await asyncio.to_thread(self.objects.has, name):
                    raise UnknownFile(f"There is no file {quoted(name)} in the server's object store of catalogs.")
                copy = self.unfinished(Path(name).suffix)
                await self._fetch(self.objects, name, copy, None, "")
            yield copy
        finally:
            if copy is not None:
                self.discard(copy)

    def _beside(self, name: str) -> Path:
        try:
            directory = self.directory.resolve()
            path = (directory / name).resolve()
            found = path.is_relative_to(directory) and path.is_file()
        except (OSError, ValueError, RuntimeError):
            # A name that is too long or holds a NUL, a loop of links, a directory that may not be read.
            found = False
        if not found:
            raise UnknownFile(f"There is no file {quoted(name)} in the server's directory of catalogs.")
        return path

    async def _fetch(self, objects: "ObjectFiles", name: str, path: Path, digest: str | None, whose: str) -> None:
        """Fetch a file, and again if what comes is damaged or cut off; not from a store that takes long to say nothing."""
        kind: type[FilesUnavailable] = FilesUnavailable
        latest = time.monotonic() + PATIENCE_SECONDS
        for attempt in range(1, FETCHES + 1):
            try:
                await asyncio.to_thread(self._fetch_once, objects, name, path, digest)
                return
            except FileGone as error:
                kind, reason = FileGone, str(error)
                break
            except FilesUnavailable as error:
                kind, reason = FilesUnavailable, str(error)
                if time.monotonic() > latest:
                    break
            except CatalogError:
                kind, reason = FileGone, "what comes is damaged"
            except OSError as error:
                kind, reason = FilesUnavailable, f"this server's cache can't be written: {error.strerror}"
            logger.warning("attempt %d to fetch the file %s%s has failed: %s", attempt, whose, name, reason)
            if attempt < FETCHES:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise kind(f"The file {whose}can't be fetched: {reason}.", 5)

    def _fetch_once(self, objects: "ObjectFiles", name: str, path: Path, digest: str | None) -> None:
        unfinished = self.unfinished()
        try:
            objects.get(name, unfinished)
            if digest is not None:
                check_digest(unfinished, digest)
            # A machine that is switched off must not find the name with nothing behind it.
            force_to_disk(unfinished)
            unfinished.replace(path)
        finally:
            self.discard(unfinished)

    async def publish_catalog(self, catalog: Catalog) -> str:
        """Publish a catalog that is no artefact yet, or lies elsewhere, and return the name of its file. Raises as `publish`."""
        unfinished = self.unfinished()
        try:
            digest = await asyncio.to_thread(save_artefact, catalog, unfinished)
            return (await asyncio.to_thread(self.publish, unfinished, digest)).name
        except OSError as error:
            raise StorageFull(f"The catalog can't be stored: {error.strerror}.") from error
        finally:
            self.discard(unfinished)

    def publish(self, unfinished: Path, digest: str) -> Path:
        """Give a finished file its name; when it returns it is on the disk, and in the object store if there is one.

        Raises:
            StorageFull, FilesUnavailable: it can't be written; there is no file of that name that was not there.
        """
        path = self.directory / digest_name(digest)
        if self.objects is not None:
            self.objects.put(unfinished, path.name)
        try:
            unfinished.replace(path)
            force_to_disk(self.directory)
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
            force_to_disk(self.directory)
        except OSError as error:
            raise StorageFull(f"The file of the version can't be deleted: {error.strerror}.") from error

    def discard(self, path: Path) -> None:
        """Delete a file that nothing names; one that can't be deleted is left for the next start."""
        with suppress(OSError):
            path.unlink(missing_ok=True)
            # A process that was killed while it wrote has left it.
            path.with_name(f"{path.name}{PART_SUFFIX}").unlink(missing_ok=True)

    def clean(self, named: Collection[str], since: float, *, alone: bool = True) -> None:
        """Delete what a killed server has left behind: unfinished files, and finished ones that are not `named`.

        Args:
            since: when these servers began to know versions, seconds since 1970; finished files from before stay.
            alone: False if other servers live, on whatever machines: then nothing is deleted here, and `tidy` does it in its time.
        """
        try:
            self._lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self.directory.iterdir() if alone else ():
                is_finished = path.name.startswith(DIGEST_PREFIX) and path.suffix == SUFFIX
                stale = is_finished and path.name not in named and path.stat().st_mtime >= since
                if stale or path.name.startswith(UNFINISHED):
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
        """Let others clean up, and end what is being fetched."""
        if self.objects is not None:
            self.objects.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def is_old(path: Path) -> bool:
    """True for a file that came, and was used last, longer ago than one stays that no version is in."""
    try:
        return time.time() - path.stat().st_mtime > KEPT_SECONDS
    except OSError:
        return False


def _use(path: Path) -> bool:
    """Note that a file is used now; False if it is not there."""
    with suppress(OSError):
        os.utime(path)
    return path.exists()
