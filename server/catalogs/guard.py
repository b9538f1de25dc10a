"""Watches over the version that is served: one that kills engines is left for the last good one.

Invariant: a version is left only if an engine has come up with another one where it had died with this. A version that an engine could not
load is left at once, one of which two engines died that were started with it, while they started or soon after, after the second. Once it
has served for long, in whichever engine, it is not left for what engines die of while they serve. If the other version fares no better, the
fault lies elsewhere, and the version stays. All of this holds also where the server is killed with its engine and started again
(`server.catalogs.deaths`).
"""

import logging
import time
from dataclasses import dataclass

from msgspec.structs import replace

from server.catalogs.deaths import DeathFile, Deaths
from server.catalogs.filters import NamedFilters
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.engine.supervisor import EngineSupervisor
from server.engine.watch import CatalogWatch
from server.errors import CatalogRefused, FilterRefused, VersionNotFound
from server.metrics.lists import HealthMetrics
from server.ticks import tick
from server.try_again import FilesUnavailable

SOON_SECONDS = 60.0
MOST_DEATHS = 2
LOOK_TICKS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Trial:
    """The version that the next engine loads in place of the one that is watched, and why that is to be left."""

    version: ServedCatalog
    reason: str


class CatalogGuard(CatalogWatch):
    """Watches the version that is served, and leaves it for an earlier one if engines die with it."""

    def __init__(
        self, catalogs: CatalogStore, filters: NamedFilters, supervisor: EngineSupervisor, health: HealthMetrics, file: DeathFile
    ) -> None:
        self._catalogs, self._filters, self._supervisor, self._health = catalogs, filters, supervisor, health
        self._file = file
        self._has_recalled = False
        self._begin(catalogs.active)
        # Monotonic seconds since when the engine is ready; None while there is none.
        self._ready_since: float | None = None
        health.count_left(lambda: len(catalogs.left))

    def _begin(self, version: ServedCatalog) -> None:
        """Watch a version, of which nothing has been seen yet."""
        self._watched = version
        self._known = Deaths(version.catalog.version)
        # None as a rule.
        self._trial: _Trial | None = None
        # True if the newest engine was started with the watched version: then it counts if it dies.
        self._started_with_it = False

    def _watch_active(self) -> None:
        """Watch the version that is served now."""
        if self._catalogs.active is not self._watched:
            self._begin(self._catalogs.active)

    async def engine_starts(self) -> None:
        """Note in the file that an engine is about to be started; before the first one, go on with what a killed server has left there."""
        if not self._has_recalled:
            self._has_recalled = True
            await self._recall()
        self._watch_active()
        self._started_with_it = self._trial is None
        self._keep()

    async def engine_ended(self, handle: str, *, blamed: bool, silence: float) -> None:
        """Count the death for the version, and name another version for the next engine when it is time to leave it."""
        # First of all: until the next engine is ready, `look` changes nothing, however long another version takes to be loaded here.
        ready_since, self._ready_since = self._ready_since, None
        self._watch_active()
        active = self._watched
        if (trial := self._trial) is not None:
            self._trial = None
            self._catalogs.end_trial()
            if (tried := trial.version.name) in self._catalogs.record.versions:
                logger.error("the engine did not come up with version %s either: version %s is tried again", tried, active.name)
                return
            # Its file may have been gone before the engine was to load it, so that the engine has ended says nothing.
            logger.error("the engine did not come up with version %s, which was removed meanwhile", tried)
            self._known = replace(self._known, tried=False)
            await self._try_another(trial.reason)
            return
        if ready_since is not None:
            self._note_service(ready_since, silence)
            if self._known.proven:
                return
        if handle != active.handle:
            return
        self._known = replace(self._known, count=self._known.count + 1)
        if blamed or self._known.count >= MOST_DEATHS:
            await self._try_another("The engine could not load it." if blamed else "Two engines died with it.")

    def engine_ready(self, handle: str) -> None:
        """Leave the version for the one on trial, if it is that which the engine has loaded."""
        self._ready_since = time.monotonic()
        trial = self._trial
        if trial is not None and handle == trial.version.handle:
            logger.error("version %s is left for version %s: %s", self._watched.name, trial.version.name, trial.reason)
            self._catalogs.leave(trial.version, trial.reason)
            self._health.open_catalog(trial.version.name, len(trial.version.catalog))
            self._begin(trial.version)
            self._started_with_it = True
        elif handle == self._watched.handle:
            self._known = replace(self._known, tried=False)

    async def watch(self) -> None:
        """Keep the file true while an engine serves, until cancelled."""
        while True:
            await tick(LOOK_TICKS)
            self.look()

    def look(self) -> None:
        """Note in the file how the version fares, if an engine serves it."""
        if self._ready_since is not None:
            self._watch_active()
            self._note_service(self._ready_since, self._supervisor.heartbeat.silence)
            self._keep()

    def end(self) -> None:
        """Forget what is in the file: the server ends by itself, or has been told to, and whoever kills it now has another reason."""
        self._file.forget()

    async def _recall(self) -> None:
        """Go on with what is known of the version from a server that was killed."""
        self._watch_active()
        self._known = self._file.read(self._known.version)
        if self._known.count:
            name, count = self._watched.name, self._known.count
            logger.warning("a server that was killed has counted engines that died with version %s: %d", name, count)
        if self._known.count >= MOST_DEATHS:
            await self._try_another("Two engines died with it, the last one as its server was killed.")

    def _keep(self) -> None:
        """Write what is to be known if the server is killed now."""
        # What a proven version's engines die of while they serve is not its fault.
        counts = self._started_with_it and not (self._known.proven and self._ready_since is not None)
        self._file.write(replace(self._known, count=self._known.count + counts))

    def _note_service(self, ready_since: float, silence: float) -> None:
        """Note it if the version has served for long by now, whatever the engine was started with.

        Args:
            ready_since: since when the engine is ready, or was.
            silence: seconds since its last sign of life: one that hung has not served since.
        """
        served_for = max(0.0, time.monotonic() - silence - max(ready_since, self._catalogs.active_since))
        if served_for >= SOON_SECONDS:
            self._known = replace(self._known, proven=True, count=0)

    async def _try_another(self, reason: str) -> None:
        """Have the next engine load another version, unless one was to be tried since an engine came up with this one."""
        if not self._known.tried:
            self._known = replace(self._known, tried=True)
            version = await self._last_good()
            self._trial = None if version is None else _Trial(version, reason)

    async def _last_good(self) -> ServedCatalog | None:
        """The newest version served before that can be loaded, and that the next engine will load; None if there is none."""
        for name in self._catalogs.served_before(self._catalogs.active.name):
            self._catalogs.trying = name
            version = await self._prepared(name)
            if self._catalogs.active is not self._watched:
                # Another one has been activated meanwhile.
                return None
            if version is not None:
                self._catalogs.start_engines_with(version)
                return version
        self._catalogs.trying = None
        return None

    async def _prepared(self, name: str) -> ServedCatalog | None:
        """A version with all filters evaluated; None if it can't be had."""
        try:
            version = await self._catalogs.load(name)
            await self._filters.prepare(version)
            # Another replica may have removed it meanwhile, and its file.
            self._catalogs.path(name)
        except (VersionNotFound, CatalogRefused, FilesUnavailable, FilterRefused) as error:
            logger.warning("version %s can't be tried instead: %s", name, error)
            return None
        return version
