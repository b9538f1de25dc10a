"""`Arrival`: an engine process from its start until it has the catalog that is to be served.

Invariant: an engine is ready only with the catalog that requests will name. If another catalog is activated while the engine loads its
model, the engine then loads that one as well, as a running engine does; the process is not started anew. Reason: loading a model may take
longer than the time between two versions, and a server that started its engine anew for each version would never serve.
"""

from collections.abc import Callable

import msgspec

from server.engine.process import Obstacle
from server.engine_settings import EngineOptions
from server.messages import CatalogLoaded, DropCatalog, LoadCatalog, Ready, ToEngine


class Arrival:
    """The messages of one process, up to the one that makes it ready."""

    def __init__(self, version: str) -> None:
        """`version` is that of the catalog in the options with which the process is started."""
        self._version = version
        self._ready: Ready | None = None
        self._is_over = False

    def hear(
        self, message: Ready | CatalogLoaded, options: EngineOptions, version: str, send: Callable[[ToEngine], None]
    ) -> Ready | Obstacle | None:
        """Take in a message of the process.

        Args:
            options: the options with which a process would be started now.
            version: the version of the catalog in these options.
            send: sends the process a message.

        Returns:
            `Ready` if it can serve from now on, an obstacle if it never can, None if it has still to load a catalog, or was ready before.
        """
        if self._is_over:
            return None
        match message:
            case Ready() if message.catalog_version != self._version:
                return _changed(self._version, message.catalog_version)
            case Ready():
                self._ready = message
            case CatalogLoaded(_, str() as sentence):
                # Another engine, which loads nothing but that, may fare better.
                return Obstacle(sentence)
            case CatalogLoaded(handle) if self._ready is not None:
                send(DropCatalog(self._ready.catalog_handle))
                self._ready = msgspec.structs.replace(self._ready, catalog_handle=handle, catalog_version=self._version)
        if self._ready is not None and self._ready.catalog_handle != options.catalog_handle:
            self._version = version
            send(LoadCatalog(options.catalog_handle, str(options.catalog)))
            return None
        self._is_over = self._ready is not None
        return self._ready


def _changed(version: str, read: str) -> Obstacle:
    sentence = (
        f"The catalog file has changed: the server started with version {version}, the engine reads {read}; put the "
        "old file back, or restart the server to serve the new one."
    )
    return Obstacle(sentence, sentence, is_catalog=True)
