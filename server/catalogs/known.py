"""The versions that a replica knows, what has been served, and what this replica has decided by itself.

Invariant: it is what the control store says at the position that is applied; only decisions that are not written yet (`Own`) are kept
beside it. A name that is taken means the same version on every replica: what would replace it is refused.

A file is deleted when no version needs it. Where other replicas live it is deleted only after an hour, because one of them may have
published the same contents a moment ago and be about to name them.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from drafting.catalog.artefact import digest_in
from drafting.errors import quoted
from server.catalogs.files import VersionFiles, is_old
from server.catalogs.own import Own
from server.catalogs.served import ServedCatalog
from server.control.follower import Follower
from server.control.records import (
    VERSION,
    Activation,
    Changes,
    LeftVersion,
    Record,
    VersionRecord,
    version_added,
    version_left,
    version_removed,
)
from server.errors import CatalogRefused, NothingToRollBack, ServerError, StorageFull, VersionActive, VersionExists, VersionNotFound
from server.try_again import ControlFull, ControlUnavailable, EngineUnavailable

BY_RECOVERY = "recovery"

logger = logging.getLogger(__name__)


class KnownVersions:
    """The versions of the fleet, as one replica knows them.

    Attributes:
        start: the catalog that this server is started with.
        active: the version that it serves.
        trying: name of an earlier version that engines are about to be started with because they died with the active one; None as a rule.
            What it is made of must not change until that is decided: it is adopted as it is, or the active one stays.
        own: what this replica has decided by itself and not written yet; None as a rule.
        files: the files of the versions.
        follower: how this replica reads and writes what all agree on.
        has_private_files: True if other replicas follow the same store and can't read these files, so that none is taken.
    """

    def __init__(self, start: ServedCatalog, files: VersionFiles, follower: Follower, *, private_files: bool = False) -> None:
        """See the attributes."""
        self.start = self.active = start
        self.has_private_files = private_files
        self.trying: str | None = None
        self.own: Own | None = None
        self.files, self.follower = files, follower

    @property
    def changing(self) -> asyncio.Lock:
        """Held by whoever changes versions or filters, from judging until that has taken effect; only `CatalogStore.leave` goes without."""
        return self.follower.changing

    @property
    def record(self) -> Record:
        """What the control store says."""
        return self.follower.record

    @property
    def history(self) -> list[Activation]:
        """All activations, oldest first."""
        return self.record.history + ([] if self.own is None else [self.own.entry])

    @property
    def left(self) -> list[LeftVersion]:
        """The versions that servers have left by themselves, and that have neither been activated nor removed since.

        One that was gone when it was left is told of until another one is activated.
        """
        left = dict(self.record.left)
        if self.own is not None:
            left.pop(self.own.entry.version, None)
            left |= {each.version: each for each in self.own.left}
        return list(left.values())

    def versions(self) -> list[str]:
        """The names of all versions, in the order in which they came."""
        return sorted({**self.record.versions, self.active.name: self.active}, key=self._came)

    def _came(self, name: str) -> float:
        return self.record.versions[name].at if name in self.record.versions else time.time()

    def check_new(self, name: str) -> None:
        """Check that no version has this name.

        Raises:
            VersionExists: one has it.
            CatalogRefused: other replicas could not read its file.
        """
        self.check_shared()
        if name in self.record.versions or name == self.active.name:
            raise VersionExists(f"There is a version {quoted(name)} already; versions do not change.")

    def check_shared(self) -> None:
        """Check that other replicas can read the files of new versions.

        Raises:
            CatalogRefused: they could not.
        """
        if self.has_private_files:
            raise CatalogRefused(
                "Other servers could not read its file: start all of them with --catalogs, a directory that all see or an object store."
            )

    def path(self, name: str) -> Path:
        """The file of a version.

        Raises:
            VersionNotFound: there is none of that name.
        """
        if (version := self.record.versions.get(name)) is None:
            raise VersionNotFound(f"There is no catalog version {quoted(name)}.")
        # Each server has its own file of the catalog that it is started with. An absolute path stays what it is.
        is_start = name == self.start.name == version.contents
        return self.start.path if is_start else self.files.directory / version.file

    def paths(self) -> set[Path]:
        """The files that versions need."""
        return {self.files.directory / version.file for version in self.record.versions.values()} | {self.active.path}

    async def add(self, name: str, unfinished: Path, digest: str) -> None:
        """Make a version of a finished file; when it returns, the version outlives the server.

        Raises:
            VersionExists, StorageFull, FilesUnavailable: the name is taken by now, or the file can't be stored; there is no such version.
            ControlUnavailable: the control store does not answer; the version may be there.
        """

        async def judge() -> None:
            self.check_new(name)
            await self.follower.write(version_added(name, VersionRecord(path.name, time.time(), after=self.record.newest)))

        async with self.changing:
            await self.follower.catch_up()
            self.check_new(name)
            path = await asyncio.to_thread(self.files.publish, unfinished, digest)
            try:
                await self.follower.decide(judge)
            except ServerError as error:
                if not may_be_written(error):
                    await self.discard(path)
                raise

    async def discard(self, path: Path) -> None:
        """Delete a file if no version is in it, and no other replica may be about to make one of it."""
        with suppress(ControlUnavailable):
            if path not in self.paths() and (is_old(path) or await self.follower.is_alone()):
                self.files.discard(path)

    async def remove(self, name: str) -> None:
        """Forget a version and its file; call it with the lock `changing` held.

        Raises:
            VersionNotFound, VersionActive: there is none, or it is served, by whichever replica, or about to be.
            StorageFull: the file can't be deleted; the version stays.
            ControlUnavailable: the control store does not answer; the version may be forgotten.
        """

        async def judge() -> tuple[VersionRecord, LeftVersion | None]:
            self.path(name)
            late = await self.follower.serving(name)
            # Behind that await, as the guard may choose it, or serve it, meanwhile.
            if name in (self.active.name, self.record.active):
                raise VersionActive(f"The version {quoted(name)} is served: activate another one first.")
            if name == self.trying:
                raise VersionActive(f"The version {quoted(name)} is on trial in place of the one that is served: remove it later.")
            if late:
                raise VersionActive(f"The version {quoted(name)} is served by {', '.join(late)}, not yet another one: remove it later.")
            version, left = self.record.versions[name], self.record.left.get(name)
            await self.follower.write(version_removed(name))
            return version, left

        version, left = await self.follower.decide(judge)
        path = self.files.directory / version.file
        if path.parent != self.files.directory:
            return
        if digest_in(path.name) is not None:
            await self.discard(path)
            return
        try:
            self.files.delete(path)
        except StorageFull:
            await self.follower.write(version_added(name, version) | ({} if left is None else version_left(left)))
            raise

    def decide_alone(
        self,
        served: ServedCatalog,
        by: str,
        instead: str | None,
        reason: str = "",
        changes: Changes | None = None,
        anyway: Changes | None = None,
        *,
        after_engine: bool = False,
    ) -> None:
        """Note what this replica serves by its own decision, to be written as soon as the store takes it.

        Args:
            instead: the version that all are to serve, or that this replica was about to bring them; it is left if there is a `reason`.
            changes: what is written beside it.
            anyway: what is written also if others have moved on.
            after_engine: True to write it only once this replica's engine has loaded the version.
        """
        entry = Activation(served.name, by, time.time())
        left: tuple[LeftVersion, ...] = (LeftVersion(instead, entry.at, reason),) if instead and reason else ()
        own = Own(entry, (instead,), left, changes or {}, anyway or {}, after_engine)
        if left and (before := self.own) is not None:
            if before.after_engine:
                # The others never served what is left, and go on; that it is left concerns them all the same.
                own = replace(own, anyway=before.anyway | _all_left(left))
            else:
                # They have not heard of what was decided before, which is written with this.
                changes, anyway = before.changes | own.changes, before.anyway | own.anyway
                own = replace(own, instead=before.instead + own.instead, left=before.left + left, changes=changes, anyway=anyway)
        self.own = own
        self.follower.stir()

    def check_brought(self) -> None:
        """Check that this replica has no catalog of its start left to bring to the others.

        Raises:
            EngineUnavailable: it has one.
        """
        if self.own is not None and self.own.after_engine:
            raise EngineUnavailable("The catalog that this server is started with is about to be served by all.")

    @property
    def decides_for_all(self) -> bool:
        """True if all are to serve what this replica has decided: others have neither moved on nor removed it, which would stop all."""
        if (own := self.own) is None or self.record.active not in own.instead:
            return False
        name = own.entry.version
        return name in self.record.versions or own.changes.get(f"{VERSION}{name}") is not None

    async def write_own(self) -> Changes:
        """Write what this replica has decided by itself, unless others have moved on or removed what it serves; call it while applying.

        Returns:
            What is still to be written where others have moved on.

        Raises:
            ControlConflict, ControlUnavailable: it can't be written now.
        """
        own, rest = self.own, Changes()
        if own is not None and self.decides_for_all:
            await self.follower.write(own.changes | own.anyway | self.record.activated(own.entry) | _all_left(own.left))
        elif own is not None:
            rest = own.anyway
            if own.entry.version != self.record.active:
                logger.warning(
                    "others have moved on to version %s, and this server follows: it had %s", self.record.active, own.entry.version
                )
        if self.own is own:
            # Else another version was left while it was written.
            self.own = None
        return rest

    def served_before(self, version: str) -> list[str]:
        """The versions that have been served before one, are still there and have not been left, the newest first."""
        left = {each.version for each in self.left}
        return [name for name in self.record.served if name != version and name not in left]

    def previous(self) -> str:
        """The version that was served before the present one.

        Raises:
            NothingToRollBack: there was none, or it has been removed.
        """
        if not (earlier := self.served_before(self.active.name)):
            raise NothingToRollBack("No other version has been served before this one.")
        return earlier[0]


def _all_left(left: tuple[LeftVersion, ...]) -> Changes:
    """The changes that say that versions were left."""
    changes = Changes()
    for each in left:
        changes |= version_left(each)
    return changes


def may_be_written(error: BaseException) -> bool:
    """True if a write to the control store that ended so, or was cut off, may be there all the same."""
    return isinstance(error, ControlUnavailable | asyncio.CancelledError) and not isinstance(error, ControlFull)
