"""The versions of the catalog: which are there, which one is served, who decided so and when.

Invariant: a request keeps the version that it started with to its end, and its answer names that version. A version is served from the
moment in which the engine has proven it and every named filter has been evaluated for it; until then, and whenever anything about it is
wrong, everything stays as it was. What changes is written first, to the control store, and then done, with nothing between the two that can
fail or wait, so that what is served, what is stored and what a restart serves are one. What a version holds in memory goes when its last
request ends.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drafting.catalog.artefact import digest_in
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.loading import load_catalog
from drafting.errors import quoted
from drafting.neighbours.model import NeighbourModel
from drafting.trie.item_set import ItemSet
from server.catalogs.files import VersionFiles
from server.catalogs.known import BY_RECOVERY, KnownVersions
from server.catalogs.proof import prove
from server.catalogs.served import ServedCatalog
from server.control.follower import Follower
from server.control.records import Activation, VersionRecord, version_added
from server.engine.client import EngineClient
from server.errors import CatalogRefused, without_folders
from server.messages import PutFilter
from server.try_again import EngineUnavailable

logger = logging.getLogger(__name__)

Prepare = Callable[[ServedCatalog], Awaitable[None]]


@dataclass
class Candidate:
    """A version that is about to be served, for as long as that is tried.

    Attributes:
        served: it, once it is loaded.
        proven: True once the engine has proven it, or is not asked to.
    """

    served: ServedCatalog | None = None
    proven: bool = False


class CatalogStore(KnownVersions):
    """The versions as one replica knows them, and the one that it serves.

    Attributes:
        active: the version that requests start with.
        active_since: monotonic seconds since when.
    """

    def __init__(
        self,
        start: ServedCatalog,
        engine: EngineClient,
        files: VersionFiles,
        follower: Follower,
        neighbours: NeighbourModel | None = None,
        *,
        private_files: bool = False,
    ) -> None:
        """
        Args:
            start: what is served until `begin`.
            neighbours: the server's neighbour model, whose items `start` has looked up already.
        """
        super().__init__(start, files, follower, private_files=private_files)
        self._neighbours = neighbours
        self.active_since = time.monotonic()
        self._engine = engine
        self._loads = 0
        # What the log was told last of a file that can't be read: a replica that is to follow tries again every few seconds.
        self._unread = ""

    def begin(self, served: ServedCatalog) -> None:
        """Serve a version, prepared already, before there is an engine."""
        if served is not self.active:
            self.start_engines_with(served)
        self.active, self.active_since = served, time.monotonic()
        for name, items in list(served.filters.items()):
            self.put_filter(served, name, items, served.meanings[name])

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

    @contextmanager
    def candidate(self) -> Iterator[Candidate]:
        """A place for a version that is about to be served; what is not served in the end is dropped."""
        candidate = Candidate()
        try:
            yield candidate
        finally:
            self._let_go(candidate)

    def _let_go(self, candidate: Candidate) -> None:
        """Drop the version of a candidate, unless it is the one that is served."""
        if candidate.served is not None and candidate.served is not self.active:
            self._engine.drop_catalog(candidate.served.handle)
        candidate.served, candidate.proven = None, False

    async def bring(self, candidate: Candidate, name: str, path: Path, prepare: Prepare, *, without_engine: bool) -> ServedCatalog:
        """A version that can be served: the active one, or one that is loaded, prepared and proven.

        Args:
            candidate: keeps what is done between two attempts.
            prepare: evaluates the named filters for it.
            without_engine: True to have it also while there is no engine, unproven; the next engine loads it.

        Raises:
            CatalogRefused: its file is unusable, or the engine can't serve it.
            EngineUnavailable, FilesUnavailable: there is no engine, or it died meanwhile, or the file can't be fetched now.
        """
        if name == self.active.name and path == self.active.path:
            return self.active
        if candidate.served is None or candidate.served.path != path:
            # It is left from an attempt that other replicas came before; the engine may hold it.
            self._let_go(candidate)
            candidate.served = await self.load(name, path)
        # Another replica may have taken, between two attempts, the name that it was loaded for.
        candidate.served.name = name
        await prepare(candidate.served)
        if not candidate.proven or self._engine.lacks(candidate.served.handle):
            # An engine that was started since has not seen it.
            await self._prove(candidate.served, without_engine)
            candidate.proven = True
        return candidate.served

    async def activate(self, served: ServedCatalog, by: str, *, new: Path | None = None) -> tuple[Activation, ServedCatalog]:
        """Serve a version that `bring` has given from now on; call it within `Follower.decide`. After an error nothing has changed.

        Args:
            new: file of a version that new items make, and that comes into being with its activation; None for one that is there.

        Returns:
            The activation, and the version that was served until then.

        Raises:
            ControlConflict, ControlUnavailable: it can't be written.
        """
        entry = Activation(served.name, by, time.time())
        added = {} if new is None else version_added(served.name, VersionRecord(new.name, entry.at, by_items=True))
        anyway = {} if self.own is None else self.own.anyway
        await self.follower.write(anyway | self.record.activated(entry) | added)
        return entry, self.adopt(served)

    def adopt(self, served: ServedCatalog) -> ServedCatalog:
        """Serve a version that `bring` has given; return the one that was served until then."""
        self.own, before = None, self.active
        if served is not before:
            self._switch(served)
        return before

    async def _prove(self, served: ServedCatalog, without_engine: bool) -> None:
        try:
            await self._engine.load_catalog(served.handle, served.path)
            await prove(self._engine, served.handle, served.catalog)
        except CatalogRefused as error:
            # Where the server keeps its files is not for clients.
            sentence = str(error).replace(str(served.path), "Its file")
            raise CatalogRefused(without_folders(sentence, *self._engine.model_paths)) from error
        except EngineUnavailable:
            if not without_engine:
                raise

    async def load(self, name: str, path: Path | None = None) -> ServedCatalog:
        """A version in memory, under a new handle; `path` is for one that is not known yet.

        Raises:
            VersionNotFound, CatalogRefused: there is none of that name, or its file is unusable.
            FilesUnavailable: its file can't be fetched now.
        """
        path = path or self.path(name)
        self._loads += 1
        served = ServedCatalog(name, f"{name}#{self._loads}", path, await self._read(name, path))
        await asyncio.to_thread(served.learn_neighbours, self._neighbours)
        return served

    async def read(self, name: str) -> Catalog:
        """The catalog of a version, which need not be served; raises as `load`."""
        served = self.active
        return served.catalog if name == served.name else await self._read(name, self.path(name))

    async def _read(self, name: str, path: Path) -> Catalog:
        if path.parent == self.files.directory:
            await self.files.local(path.name, digest_in(path.name), name)
        try:
            catalog = await asyncio.to_thread(load_catalog, path)
        except CatalogError as error:
            if self._unread != str(error):
                # Where the file lies is for the log alone.
                self._unread = str(error)
                logger.error("the file of version %s can't be read: %s", name, error)
            raise CatalogRefused(f"The version {quoted(name)} can't be read any more.") from error
        self._unread = ""
        contents = self.record.versions[name].contents if name in self.record.versions else ""
        if contents not in ("", catalog.version):
            raise CatalogRefused(f"The file of version {quoted(name)} has changed: bring it under another name.")
        return catalog

    def leave(self, served: ServedCatalog, reason: str) -> None:
        """Serve an earlier version, which an engine has loaded, because of what the active one has done.

        A control store that is away does not keep a server from it, nor does the lock `changing`: who holds it may be waiting for that very
        engine. So after each await under the lock `active`, `own` and `trying` may be others.
        """
        self.decide_alone(served, BY_RECOVERY, self.active.name, reason)
        self._switch(served)

    def start_engines_with(self, served: ServedCatalog) -> None:
        """Have engines that are started from now on load a version: the active one, or the one on trial."""
        self._engine.supervisor.serve_catalog(served.handle, served.path, served.catalog.version)

    def end_trial(self) -> None:
        """Go on with the active version: no engine has come up with the one on trial either."""
        self.trying = None
        self.start_engines_with(self.active)
        self.follower.stir()

    def check_settled(self, active: ServedCatalog | None = None) -> None:
        """Refuse a change while it is not sure which version it is a change of.

        Raises:
            EngineUnavailable: an earlier version is on trial, or was and is served now in place of `active`.
        """
        if self.trying is not None or active not in (None, self.active):
            raise EngineUnavailable("Engines died, and an earlier version of the catalog is being tried: send this again in a moment.", 5)

    def put_filter(self, served: ServedCatalog, name: str, items: ItemSet, meaning: bytes) -> None:
        """Give a name to a set of a version's items, which its `meaning` comes to, here and in the engine."""
        message = PutFilter(served.handle, name, items.bits.tobytes())
        self._engine.put_filter(message)
        # The bytes of the message, which engines that are started later are told too, are the set: there is no second copy.
        served.filters[name], served.meanings[name] = ItemSet(np.frombuffer(message.bits, np.uint8), items.catalog_items), meaning

    def _switch(self, served: ServedCatalog) -> None:
        for name, items in list(served.filters.items()):
            self.put_filter(served, name, items, served.meanings[name])
        self.start_engines_with(served)
        if self._engine.lacks(served.handle):
            logger.warning("an engine was started while version %s was activated: it is replaced by one that loads it", served.name)
            self._engine.supervisor.replace()
        before, self.active, self.active_since, self.trying = self.active, served, time.monotonic(), None
        if not before.running:
            self._engine.drop_catalog(before.handle)
