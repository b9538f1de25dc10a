"""`CatalogWatch`: what is told how engine processes fare with the catalog that they load. This base class ignores it."""


class CatalogWatch:
    """Told of the end and the readiness of each engine process; may name another catalog for the next one."""

    async def engine_starts(self) -> None:
        """Take note that an engine process is about to be started, once this returns."""

    async def engine_ended(self, catalog: str, *, blamed: bool, silence: float) -> None:
        """Take note that an engine process has ended which was started with `catalog`.

        Args:
            blamed: True if that is why.
            silence: seconds since its last sign of life.
        """

    def engine_ready(self, catalog: str) -> None:
        """Take note that an engine process has loaded `catalog` and is about to take requests."""
