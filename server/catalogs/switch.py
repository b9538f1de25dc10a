"""Serving another version of the catalog: everything that must happen in one go.

Invariant: all that changes what is served, by name or by new items, comes through here with the lock `CatalogStore.changing` held, so a
version is served with all named filters evaluated and its metrics begun, or not at all.
"""

from server.catalogs.filters import NamedFilters
from server.catalogs.store import Activation, CatalogStore
from server.metrics.lists import HealthMetrics


class CatalogSwitch:
    """Serves versions that are known."""

    def __init__(self, catalogs: CatalogStore, filters: NamedFilters, health: HealthMetrics) -> None:
        self._catalogs = catalogs
        self._filters = filters
        self._health = health

    async def serve(self, version: str, by: str, *, extended: bool = False) -> Activation:
        """Serve a version from now on.

        Args:
            extended: True if it is the served version with items added.

        Raises:
            VersionNotFound, CatalogRefused, FilterRefused: there is no such version, or it can't be served; nothing has changed.
            EngineUnavailable: there is no engine, or it died meanwhile; nothing has changed.
        """
        before = self._catalogs.active
        with self._health.activation():
            activation = await self._catalogs.activate(version, by, self._filters.prepare)
        if (served := self._catalogs.active) is not before:
            begin = self._health.extend_catalog if extended else self._health.open_catalog
            begin(served.name, len(served.catalog))
        return activation
