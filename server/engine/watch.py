"""`CatalogWatch`: what is told how engine processes fare with the catalog that they load. This base class ignores it.

A handle is the name that engines have for a catalog (`ServedCatalog.handle`).
"""


class CatalogWatch:
    """Told of the end and the readiness of each engine process; may name another catalog for the next one."""

    async def engine_starts(self) -> None:
        """Take note that an engine process is about to be started, once this returns."""

    async def engine_ended(self, handle: str, *, blamed: bool, silence: float) -> None:
        """Take note that an engine process has ended.

        Args:
            handle: of the catalog that it was started with.
            blamed: True if that is why.
            silence: seconds since its last sign of life.
        """

    def engine_ready(self, handle: str) -> None:
        """Take note that an engine process has loaded a catalog and is about to take requests."""
