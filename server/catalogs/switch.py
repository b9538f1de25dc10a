"""Serving another version of the catalog: everything that must happen in one go.

Invariant: all that changes what is served, by name or by new items, comes through here with the lock `CatalogStore.changing` held, so a
version is served with all named filters evaluated and its metrics begun, or not at all.
"""

from pathlib import Path

from server.catalogs.filters import NamedFilters
from server.catalogs.journal import Activation
from server.catalogs.store import CatalogStore
from server.metrics.lists import HealthMetrics


class CatalogSwitch:
    """Serves versions that are known."""

    def __init__(self, catalogs: CatalogStore, filters: NamedFilters, health: HealthMetrics) -> None:
        self._catalogs = catalogs
        self._filters = filters
        self._health = health

    async def serve(self, version: str, by: str, *, extended: Path | None = None, without_engine: bool = False) -> Activation:
        """Serve a version from now on.

        Args:
            extended: file of a new version, which is the served one with items added; None for a version that is there.
            without_engine: True to do it also while there is no engine.

        Raises:
            VersionNotFound, CatalogRefused, FilterRefused: there is no such version, or it can't be served; nothing has changed.
            EngineUnavailable: there is no engine, or it died meanwhile; nothing has changed.
            StorageFull: it can't be written down; nothing has changed.
        """
        before = self._catalogs.active
        with self._health.activation():
            activation = await self._catalogs.activate(version, by, self._filters.prepare, new=extended, without_engine=without_engine)
        if (served := self._catalogs.active) is not before:
            begin = self._health.open_catalog if extended is None else self._health.extend_catalog
            begin(served.name, len(served.catalog))
        return activation
