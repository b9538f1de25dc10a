"""The versions of the catalog: which are there, which one is served, who decided so and when.

Invariant: a request keeps the version that it started with to its end, and its answer names that version. A version is served from the
moment in which the engine has proven it and every named filter has been evaluated for it; until then, and whenever anything about it is
wrong, everything stays as it was. What changes is written first and then done, with nothing between the two that can fail or wait, so that
what is served, what is on the disk and what a restart serves are one. What a version holds in memory goes when its last request ends.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from drafting.catalog.artefact import DIGEST_PREFIX, digest_in
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.loading import load_catalog
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.trie.item_set import ItemSet
from server.catalogs.files import VersionFiles
from server.catalogs.journal import BY_RECOVERY, Activation, Event, Journal, LeftVersion, Line
from server.catalogs.proof import prove
from server.engine.client import EngineClient
from server.errors import (
    CatalogRefused,
    EngineUnavailable,
    NothingToRollBack,
    StorageFull,
    UnknownItem,
    VersionActive,
    VersionExists,
    VersionNotFound,
    quoted,
)
from server.messages import PutFilter

logger = logging.getLogger(__name__)

Prepare = Callable[["ServedCatalog"], Awaitable[None]]


@dataclass(eq=False)
class ServedCatalog:
    """A version in memory.

    Attributes:
        name: name of the version, also in answers.
        handle: name of the version in the engine; a version that is activated again gets another one.
        path: the file that engines load it from.
        filters: the items that each named filter lets through.
        running: requests that have started with it and not ended.
        neighbours: what the server's neighbour model knows of its items; None without such a model.
    """

    name: str
    handle: str
    path: Path
    catalog: Catalog
    filters: dict[str, ItemSet] = field(default_factory=dict)
    running: int = 0
    neighbours: CatalogNeighbours | None = None

    def learn_neighbours(self, model: NeighbourModel | None) -> None:
        """Look up the items of a neighbour model, if there is one."""
        if model is not None:
            self.neighbours = CatalogNeighbours.of(model, self.catalog)
            level = logging.INFO if self.neighbours.known else logging.WARNING
            logger.log(level, "the neighbour model knows %d of %d items of version %s", self.neighbours.known, len(self.catalog), self.name)


class CatalogStore:
    """The versions of one server, as files in a directory, and the one that is served.

    Attributes:
        active: the version that requests start with.
        active_since: monotonic seconds since when.
        trying: name of an earlier version that engines are about to be started with because they died with the active one; None as a rule.
            What it is made of must not change until that is decided: it is adopted as it is, or the active one stays.
        changing: held by whoever changes versions, from judging a name until the change has taken effect.
        files: the files of the versions.
    """

    def __init__(
        self,
        first: ServedCatalog,
        engine: EngineClient,
        files: VersionFiles,
        start: ServedCatalog | None = None,
        neighbours: NeighbourModel | None = None,
    ) -> None:
        """
        Args:
            first: what the engine loads.
            files: those of the versions; what is in their directory already is known.
            start: the catalog that the server is started with, if it is another one.
            neighbours: the server's neighbour model, whose items `first` has looked up already.
        """
        self._neighbours = neighbours
        self.active, self.active_since = first, time.monotonic()
        self.trying: str | None = None
        self.changing = asyncio.Lock()
        self.files = files
        self._journal = Journal(files.directory)
        self._engine = engine
        recorded = {name: files.directory / file for name, file in self._journal.record.files.items()}
        starts = {each.name: each for each in (start, first) if each is not None}
        self._paths = self.files.brought() | recorded | {name: each.path for name, each in starts.items()}
        # What lies outside of the directory can be replaced by others; a version is its contents.
        self._contents = {name: each.catalog.version for name, each in starts.items()}
        self._loads = 0

    @property
    def history(self) -> list[Activation]:
        """All activations, oldest first."""
        return self._journal.record.history

    @property
    def left(self) -> list[LeftVersion]:
        """The versions that the server has left by itself, and that have not been activated since."""
        return list(self._journal.record.left.values())

    def started(self, by: str, left: str | None = None, reason: str = "") -> None:
        """Note that a server has started with the active version; `left` is what it could not start with, and why.

        A disk that is full does not keep a server from starting: the note is written with the next change.
        """
        self.files.clean({path.name for path in self._paths.values()} if self._journal.is_whole else None)
        line = self._line(Event.STARTED, self.active, by)
        self._journal.append_late(msgspec.structs.replace(line, left=left, reason=reason if left else ""))

    def versions(self) -> list[str]:
        """The names of all versions, in the order in which they came."""
        return list(self._paths)

    def check_new(self, name: str) -> None:
        """Check that no version has this name.

        Raises:
            VersionExists: one has it.
        """
        if name in self._paths:
            raise VersionExists(f"There is a version {quoted(name)} already; versions do not change.")

    async def add(self, name: str, unfinished: Path, digest: str) -> None:
        """Make a version of a finished file; when it returns, the version outlives the server.

        Raises:
            VersionExists, StorageFull, FilesUnavailable: the name is taken by now, or the file can't be stored; there is no such version.
        """
        async with self.changing:
            self.check_new(name)
            path = await asyncio.to_thread(self.files.publish, unfinished, digest)
            try:
                self._journal.append(Line(name, "", time.time(), Event.ADDED, path.name))
            except StorageFull:
                self.discard(path)
                raise
            self._paths[name] = path

    def discard(self, path: Path) -> None:
        """Delete a file if no version is in it."""
        if path not in self._paths.values():
            self.files.discard(path)

    def remove(self, name: str) -> None:
        """Forget a version and its file; call it with the lock `changing` held.

        Raises:
            VersionNotFound, VersionActive: there is none, or it is served or about to be.
            StorageFull: the directory can't be written; the version stays.
        """
        path = self._path(name)
        if name == self.active.name:
            raise VersionActive(f"The version {quoted(name)} is served: activate another one first.")
        if name == self.trying:
            raise VersionActive(f"The version {quoted(name)} is on trial in place of the one that is served: remove it later.")
        if name in self._journal.record.files:
            self._journal.append(Line(name, "", time.time(), Event.REMOVED))
        elif path.parent == self.files.directory:
            self.files.delete(path)
        del self._paths[name]
        self._contents.pop(name, None)
        if path.parent == self.files.directory:
            self.discard(path)

    @contextmanager
    def lease(self) -> Iterator[ServedCatalog]:
        """The version that is served now, for as long as a request needs it."""
        served = self.active
        served.running += 1
        try:
            yield served
        finally:
            served.running -= 1
            if not served.running and served is not self.active:
                self._engine.drop_catalog(served.handle)

    async def activate(self, name: str, by: str, prepare: Prepare, *, new: Path | None = None, without_engine: bool = False) -> Activation:
        """Serve a version from now on; call it with the lock `changing` held. After an error nothing has changed.

        Args:
            prepare: evaluates the named filters for it.
            new: file of a version that comes into being with its activation; None for one that is there.
            without_engine: True to do it also while there is no engine, unproven; the next engine loads it.

        Raises:
            VersionNotFound, CatalogRefused: there is none of that name, or its file is unusable, or the engine can't serve it.
            EngineUnavailable, FilesUnavailable: there is no engine, or it died meanwhile, or the file can't be fetched now.
            StorageFull: it can't be written down.
        """
        path = new or self._path(name)
        served = self.active
        if name != served.name:
            served = await self.load(name, path)
            await prepare(served)
        try:
            if served is not self.active:
                await self._prove(served, without_engine)
            self._journal.append(self._line(Event.ACTIVATED, served, by))
            if served is not self.active:
                self._switch(served)
        finally:
            if served is not self.active:
                self._engine.drop_catalog(served.handle)
        return self.history[-1]

    async def _prove(self, served: ServedCatalog, without_engine: bool) -> None:
        try:
            await self._engine.load_catalog(served.handle, served.path)
            await prove(self._engine, served.handle, served.catalog)
        except CatalogRefused as error:
            # Where the server keeps its files is not for clients.
            raise CatalogRefused(str(error).replace(str(served.path), "Its file")) from error
        except EngineUnavailable:
            if not without_engine:
                raise

    async def load(self, name: str, path: Path | None = None) -> ServedCatalog:
        """A version in memory, under a new handle; `path` is for one that is not known yet.

        Raises:
            VersionNotFound, CatalogRefused: there is none of that name, or its file is unusable.
            FilesUnavailable: its file can't be fetched now.
        """
        path = path or self._path(name)
        self._loads += 1
        served = ServedCatalog(name, f"{name}#{self._loads}", path, await self._read(name, path))
        await asyncio.to_thread(served.learn_neighbours, self._neighbours)
        return served

    async def read(self, name: str) -> Catalog:
        """The catalog of a version, which need not be served; raises as `load`."""
        served = self.active
        return served.catalog if name == served.name else await self._read(name, self._path(name))

    async def _read(self, name: str, path: Path) -> Catalog:
        if path.parent == self.files.directory:
            await self.files.local(path.name, digest_in(path.name), name)
        try:
            catalog = await asyncio.to_thread(load_catalog, path)
        except CatalogError as error:
            raise CatalogRefused(f"The version {quoted(name)} can't be read any more.") from error
        if self._contents.get(name, catalog.version) != catalog.version:
            raise CatalogRefused(f"The file of version {quoted(name)} has changed: bring it under another name.")
        return catalog

    def leave(self, served: ServedCatalog, reason: str) -> None:
        """Serve an earlier version, which an engine has loaded, because of what the active one has done.

        A disk that is full does not keep a server from it: after a restart it comes to the same.
        """
        line = self._line(Event.ACTIVATED, served, BY_RECOVERY)
        self._journal.append_late(msgspec.structs.replace(line, left=self.active.name, reason=reason))
        self._switch(served)

    def served_before(self) -> list[str]:
        """The versions that have been served before the present one and are still there, the newest first."""
        return [name for name in self._journal.record.served_before(self.active.name) if name in self._paths]

    def previous(self) -> str:
        """The version that was served before the present one.

        Raises:
            NothingToRollBack: there was none, or it has been removed.
        """
        if not (earlier := self.served_before()):
            raise NothingToRollBack("No other version has been served before this one.")
        return earlier[0]

    def put_filter(self, served: ServedCatalog, name: str, items: ItemSet) -> None:
        """Give a name to a set of a version's items, here and in the engine."""
        message = PutFilter(served.handle, name, items.bits.tobytes())
        self._engine.put_filter(message)
        # The bytes of the message, which engines that are started later are told too, are the set: there is no second copy.
        served.filters[name] = ItemSet(np.frombuffer(message.bits, np.uint8), items.catalog_items)

    def _switch(self, served: ServedCatalog) -> None:
        for name, items in list(served.filters.items()):
            self.put_filter(served, name, items)
        self._engine.serve_catalog(served.handle, served.path, served.catalog.version)
        self._paths[served.name] = served.path
        self._contents[served.name] = served.catalog.version
        before, self.active, self.active_since, self.trying = self.active, served, time.monotonic(), None
        if not before.running:
            self._engine.drop_catalog(before.handle)

    def _line(self, event: Event, served: ServedCatalog, by: str) -> Line:
        return Line(served.name, by, time.time(), event, served.path.name if served.path.name.startswith(DIGEST_PREFIX) else None)

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            raise VersionNotFound(f"There is no catalog version {quoted(name)}.")
        return self._paths[name]


def known_items(catalog: Catalog, item_ids: Sequence[str], field: str) -> list[int]:
    """The catalog indices of items that a field of a request names.

    Raises:
        UnknownItem: the catalog does not have one of them.
    """
    indices, missing = found_items(catalog, item_ids)
    if missing:
        raise UnknownItem(f"The catalog has no item {quoted(missing[0])}, which {field} names.")
    return indices


def found_items(catalog: Catalog, item_ids: Sequence[str]) -> tuple[list[int], list[str]]:
    """The catalog indices of items, -1 for those that the catalog does not have, and the ids of these."""
    if not item_ids:
        return [], []
    indices: list[int] = catalog.indices_of(item_ids).tolist()
    return indices, [item_id for item_id, index in zip(item_ids, indices, strict=True) if index < 0]
