"""`CatalogReplica`: what a replica makes of the control store: the version that is served, and the named filters.

Invariant: after `apply` this replica serves the version that all are to serve, with the filters that all are to have, or it has raised and
serves what it served before.

What it has decided by itself is written before it follows others, unless they have moved on, and only once all filters are evaluated for
it: a version for which a filter can't be evaluated would stop all replicas. A catalog that it brings to others while they serve is written
only once its own engine has loaded it, because a catalog that no engine loads must stop no other replica. A catalog is brought once,
whatever becomes of it.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from drafting.catalog.artefact import digest_in
from server.catalogs.filters import NamedFilters
from server.catalogs.start import BY_START, UNREADABLE, first_catalog
from server.catalogs.store import CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.control.records import (
    Changes,
    Record,
    VersionRecord,
    state_created,
    version_added,
    version_removed,
)
from server.try_again import ControlUnavailable, EngineUnavailable, ReplicaBehind

logger = logging.getLogger(__name__)


class CatalogReplica:
    """The `Applier` of a server."""

    def __init__(self, catalogs: CatalogStore, filters: NamedFilters, switch: CatalogSwitch) -> None:
        self._catalogs, self._filters, self._switch = catalogs, filters, switch
        self._follower = catalogs.follower
        # What this start has found, or had to give up, and that is not written yet.
        self._unwritten: Changes = {}

    @property
    def has_more(self) -> bool:
        """True if this replica has decided or found something by itself that is not written."""
        return self._catalogs.own is not None or bool(self._unwritten)

    async def begin(self) -> None:
        """Decide with which version this server begins, before there is an engine; call it again after an error.

        Raises:
            ControlUnavailable, ControlEmpty, ControlConflict: there is no state to begin with, yet.
            FilesUnavailable, StorageFull: the file of the version can't be fetched, or that of this start can't be stored, now.
            FilterRefused: no version can be served with the named filters.
        """
        catalogs, follower = self._catalogs, self._follower
        async with catalogs.changing:
            await follower.read_on(begins=True)
            alone = await follower.is_alone(ready=True)
            first = await first_catalog(catalogs, self._filters, alone=alone)
            self._switch.begin(first.served)
            changes = await self._found(alone=alone)
            if changes and (first.by is None or not alone):
                # A server alone writes it in one go with its decision. Beside others that waits for its engine, as what it found need not.
                await self._write_found(changes)
            if first.by is not None:
                own = changes if alone or self._unwritten else {}
                began = catalogs.record.began_with(catalogs.start.name, time.time()) if first.by == BY_START else {}
                reason = UNREADABLE if first.left else ""
                catalogs.decide_alone(first.served, first.by, catalogs.record.active, reason, own, began, after_engine=not alone)
            try:
                await follower.decide(_nothing)
            except ControlUnavailable as error:
                # It is read, and served: what can't be noted is written later.
                logger.warning("this start is not noted: %s", error)
                follower.problem = None
            except ReplicaBehind:
                pass  # It is said, and tried again.
            found = Record.of({key: value for key, value in changes.items() if value is not None}).versions.values()
            needed = {path.name for path in catalogs.paths()} | {version.file for version in found}
            catalogs.files.clean(needed, catalogs.record.created, alone=alone)

    async def _found(self, *, alone: bool) -> Changes:
        """Changes that the store lacks: versions that lie in the directory or come with this start, and versions whose file is gone."""
        known, files = self._catalogs.record.versions, self._catalogs.files
        brought, changes = files.brought(), Changes()
        for name in brought.keys() - known.keys():
            changes |= version_added(name, VersionRecord(brought[name].name, time.time(), after=self._catalogs.record.newest))
        if self._catalogs.start.name not in known or self._is_out_of_sight(known[self._catalogs.start.name]):
            changes |= await self._start_added()
        for name, version in known.items() if alone else ():
            is_brought = not version.contents and digest_in(version.file) is None
            if is_brought and not (files.directory / version.file).exists() and name not in brought:
                logger.warning("the file of version %s is gone, and so is the version", name)
                changes |= version_removed(name)
        return changes

    async def _write_found(self, changes: Changes) -> None:
        """Write what was found, or keep it to be written later."""
        try:
            await self._follower.write(changes)
            self._unwritten = {}
        except ControlUnavailable:
            # The log tells it. What is gone is judged anew when a server starts, for by then others may have brought it.
            self._unwritten = {key: value for key, value in changes.items() if value is not None}

    def _is_out_of_sight(self, version: VersionRecord) -> bool:
        """True for a version in a file of each server's own, from before there was a place where all find it."""
        return self._catalogs.files.is_shared and Path(version.file).is_absolute() and version.contents == self._catalogs.start.name

    async def _start_added(self) -> Changes:
        """The version that this server is started with, and where all find it."""
        start, files = self._catalogs.start, self._catalogs.files
        file = await files.publish_catalog(start.catalog) if files.is_shared else str(start.path)
        return version_added(start.name, VersionRecord(file, time.time(), start.catalog.version))

    async def initial(self) -> Mapping[str, bytes]:
        """What an empty store is filled with: the files that lie in the directory, and the catalog of this start."""
        values = state_created(time.time())
        for name, path in self._catalogs.files.brought().items():
            values |= version_added(name, VersionRecord(path.name, 0.0))
        values |= await self._start_added()
        return {key: value for key, value in values.items() if value is not None}

    async def apply(self, record: Record) -> None:
        """Serve what all are to serve, with the filters that all are to have.

        Raises:
            ServerError: it can't be served, yet; what is served has not changed.
        """
        catalogs = self._catalogs
        if not self._is_pending or self._switch.has_engine:
            if catalogs.decides_for_all:
                # What can't be served with all filters would stop the others, too, and with them whoever could take the filter back.
                await self._filters.follow()
            self._unwritten |= await catalogs.write_own()
        if catalogs.own is None and record.active is not None and self._is_other(record.active):
            await self._switch.follow(record.active)
        elif catalogs.trying is not None:
            raise EngineUnavailable("Engines died, and an earlier version of the catalog is being tried.", 5)
        await self._filters.follow()
        self._unwritten = {key: value for key, value in self._unwritten.items() if key not in self._follower.values}
        if self._unwritten:
            await self._write_found(self._unwritten)

    @property
    def _is_pending(self) -> bool:
        """True while the others go on with what they serve, and are yet to be told of the catalog that this replica brings them."""
        own = self._catalogs.own
        return own is not None and own.after_engine and self._catalogs.decides_for_all

    def _is_other(self, name: str) -> bool:
        active = self._catalogs.active
        return name != active.name or self._catalogs.path(name) != active.path


async def _nothing() -> None:
    """Decide nothing."""
