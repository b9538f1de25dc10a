"""Watches over the version that is served: one that kills engines is left for the last good one.

Invariant: a version is left only if an engine has come up with another one where it had died with this. A version that an engine could not
load is left at once, one of which two engines died that were started with it, while they started or soon after, after the second. Once it
has served for long, in whichever engine, it is not left for what engines die of while they serve. If the other version fares no better, the
fault lies elsewhere, and the version stays.
"""

import logging
import time

from server.catalogs.filters import NamedFilters
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.engine.supervisor import EngineSupervisor
from server.engine.watch import CatalogWatch
from server.errors import CatalogRefused, FilterRefused, VersionNotFound
from server.metrics.lists import HealthMetrics
from server.try_again import FilesUnavailable

SOON_SECONDS = 60.0
MOST_DEATHS = 2

logger = logging.getLogger(__name__)


class CatalogGuard(CatalogWatch):
    """Watches the version that is served, and leaves it for an earlier one if engines die with it."""

    def __init__(self, catalogs: CatalogStore, filters: NamedFilters, supervisor: EngineSupervisor, health: HealthMetrics) -> None:
        self._catalogs, self._filters, self._supervisor, self._health = catalogs, filters, supervisor, health
        self._begin(catalogs.active)
        # Monotonic seconds since when the engine is ready; None while there is none.
        self._ready_since: float | None = None
        health.count_left(lambda: len(catalogs.left))

    def _begin(self, version: ServedCatalog) -> None:
        """Watch a version, of which nothing has been seen yet."""
        self._watched = version
        # Engines that died with it while they started, or soon after.
        self._deaths = 0
        # True once it has served for long: it is not left any more.
        self._proven = False
        # Why it is to be left, once it is.
        self._reason = ""
        # The version that the next engine loads in its place; None as a rule.
        self._trial: ServedCatalog | None = None
        # True once another one was to be tried, until an engine comes up with the watched one again.
        self._tried = False

    async def engine_ended(self, catalog: str, *, blamed: bool, silence: float) -> None:
        """Count the death for the version, and name another version for the next engine when it is time to leave it."""
        active, ready_since = self._catalogs.active, self._ready_since
        self._ready_since = None
        if active is not self._watched:
            self._begin(active)
        if self._trial is not None:
            logger.error("the engine did not come up with version %s either: version %s is tried again", self._trial.name, active.name)
            self._trial = self._catalogs.trying = None
            self._supervisor.serve_catalog(active.handle, active.path, active.catalog.version)
            self._catalogs.follower.stir()
            return
        if ready_since is not None:
            # Whatever it was started with. One that hung has not served since its last sign of life.
            served_for = max(0.0, time.monotonic() - silence - max(ready_since, self._catalogs.active_since))
            if served_for >= SOON_SECONDS:
                self._proven, self._deaths = True, 0
            if self._proven:
                return
        if catalog != active.handle:
            return
        self._deaths += 1
        if (blamed or self._deaths >= MOST_DEATHS) and not self._tried:
            self._reason = "The engine could not load it." if blamed else "Two engines died with it."
            self._tried = True
            self._trial = await self._last_good()

    def engine_ready(self, catalog: str) -> None:
        """Leave the version for the one on trial, if it is that which the engine has loaded."""
        self._ready_since = time.monotonic()
        if self._trial is not None and catalog == self._trial.handle:
            logger.error("version %s is left for version %s: %s", self._watched.name, self._trial.name, self._reason)
            self._catalogs.leave(self._trial, self._reason)
            self._health.open_catalog(self._trial.name, len(self._trial.catalog))
            self._begin(self._trial)
        elif catalog == self._watched.handle:
            self._tried = False

    async def _last_good(self) -> ServedCatalog | None:
        """The newest version served before that can be loaded, and that the next engine will load; None if there is none."""
        for name in self._catalogs.served_before(self._catalogs.active.name):
            self._catalogs.trying = name
            version = await self._prepared(name)
            if self._catalogs.active is not self._watched:
                # Another one has been activated meanwhile.
                return None
            if version is not None:
                self._supervisor.serve_catalog(version.handle, version.path, version.catalog.version)
                return version
        self._catalogs.trying = None
        return None

    async def _prepared(self, name: str) -> ServedCatalog | None:
        """A version with all filters evaluated; None if it can't be had."""
        try:
            version = await self._catalogs.load(name)
            await self._filters.prepare(version)
        except (VersionNotFound, CatalogRefused, FilesUnavailable, FilterRefused) as error:
            logger.warning("version %s can't be tried instead: %s", name, error)
            return None
        return version
