"""Serving another version of the catalog: everything that must happen in one go.

Invariant: all that changes what is served, by name, by new items or because others have written it, comes through here with the lock
`CatalogStore.changing` held, so a version is served with all named filters evaluated, the builder of its prompts made and its metrics
begun, or not at all. Only the guard leaves a version elsewhere, and that may be at any await in here (`CatalogStore.leave`).
"""

import logging
from pathlib import Path

from drafting.catalog.catalog import Catalog
from drafting.errors import quoted
from server.catalogs.filters import NamedFilters
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.served import ServedCatalog
from server.catalogs.store import Candidate, CatalogStore
from server.control.records import Activation
from server.engine.supervisor import EngineStatus, EngineSupervisor
from server.errors import NothingToRollBack, ServerError, VersionNotFound, VersionNotServed
from server.metrics.lists import HealthMetrics
from server.try_again import EngineUnavailable

# Mistakes of whoever asks for a version: they are not counted as failed activations.
_MISTAKES = VersionNotFound, VersionNotServed, NothingToRollBack

logger = logging.getLogger(__name__)


class CatalogSwitch:
    """Serves versions that are known."""

    def __init__(
        self,
        catalogs: CatalogStore,
        filters: NamedFilters,
        prompts: CatalogPrompts,
        supervisor: EngineSupervisor,
        health: HealthMetrics,
    ) -> None:
        self._catalogs = catalogs
        self._filters, self._prompts = filters, prompts
        self._supervisor = supervisor
        self._health = health
        # Name of the version with which an engine has died here: only an engine that proves it may have it adopted.
        self._deadly: str | None = None

    @property
    def has_engine(self) -> bool:
        """True if an engine is ready, with the version that is served."""
        return self._supervisor.status is EngineStatus.READY

    async def serve(self, version: str | None, by: str, *, served: str | None = None, without_engine: bool = False) -> Activation:
        """Serve a version from now on, here and on all other replicas.

        Args:
            version: its name; None for the one that was served before.
            served: name of the version that is to be left; None for whichever is served.
            without_engine: True to do it also while there is no engine.

        Raises:
            VersionNotServed: another version is served than the one that is to be left; nothing has changed.
            VersionNotFound, NothingToRollBack, CatalogRefused, FilterRefused: there is no such version, or it can't be served; nothing
                has changed.
            EngineUnavailable, FilesUnavailable: there is no engine, or it died meanwhile, or the file is away; nothing has changed.
            ControlUnavailable: the control store does not answer; what is served here has not changed, and is followed.
        """

        async def judge() -> Activation:
            if served not in (None, active := self._catalogs.active.name):
                raise VersionNotServed(f"The version {quoted(served)} is not served any more: {quoted(active)} is. Nothing was changed.")
            name = self._catalogs.previous() if version is None else version
            found = await self._bring(candidate, name, self._catalogs.path(name), without_engine=without_engine)
            activation, before = await self._catalogs.activate(found, by)
            self._begin_metrics(before)
            return activation

        with self._health.activation(*_MISTAKES), self._catalogs.candidate() as candidate:
            try:
                return await self._catalogs.follower.decide(judge)
            except _MISTAKES:
                raise
            except ServerError as error:
                # The answer is for whoever has asked, and the alert for who is on call.
                logger.error("%s is not activated: %s", "the version served before" if version is None else f"version {version}", error)
                raise

    async def extend(self, candidate: Candidate, base: ServedCatalog, version: str, by: str, path: Path) -> Activation:
        """Serve a new version, which is `base`, the served one, with items added; call it within `Follower.decide`.

        Raises as `serve`, and EngineUnavailable if `base` has been left meanwhile, because engines died with it.
        """
        found = await self._bring(candidate, version, path)
        self._catalogs.check_settled(base)
        activation, before = await self._catalogs.activate(found, by, new=path)
        # What fails is told to whoever sent the items; where another replica came before, all this is done again.
        self._health.activated()
        self._health.items_added.inc(len(found.catalog) - len(base.catalog))
        self._begin_metrics(before)
        return activation

    async def follow(self, version: str) -> None:
        """Serve a version here that all are to serve. Raises as `serve`."""
        unproven = not self.has_engine and version != self._deadly
        with self._health.activation(), self._catalogs.candidate() as candidate:
            path = self._catalogs.path(version)
            try:
                served = await self._catalogs.bring(candidate, version, path, self._filters.prepare, without_engine=unproven)
            except EngineUnavailable:
                self._deadly = version
                raise
            await self._prompts.prepare(served)
            before = self._catalogs.adopt(served)
        self._deadly = None
        self._begin_metrics(before)

    def begin(self, served: ServedCatalog) -> None:
        """Serve a version, prepared already, that the first engine is to load."""
        self._catalogs.begin(served)
        self._health.open_catalog(served.name, len(served.catalog))

    async def _bring(self, candidate: Candidate, version: str, path: Path, *, without_engine: bool = False) -> ServedCatalog:
        """A version that can be served, with the builder of its prompts. Raises as `CatalogStore.bring` and `CatalogPrompts.prepare`."""
        found = await self._catalogs.bring(candidate, version, path, self._filters.prepare, without_engine=without_engine)
        if found is not self._catalogs.active:
            # Behind the engine, so that what its model can't read is refused in its words, and not as prompts that can't be made now.
            await self._prompts.prepare(found)
        return found

    def _begin_metrics(self, before: ServedCatalog) -> None:
        if (served := self._catalogs.active) is not before:
            begin = self._health.extend_catalog if self._extends(served, before.catalog) else self._health.open_catalog
            begin(served.name, len(served.catalog))

    def _extends(self, served: ServedCatalog, before: Catalog) -> bool:
        """True if new items, of whichever replica, have made the version, and the items of the one before have kept their places in it."""
        version, last = self._catalogs.record.versions.get(served.name), len(before) - 1
        is_made = version is not None and version.by_items and last < len(served.catalog)
        return is_made and served.catalog.item_ids[last] == before.item_ids[last]
