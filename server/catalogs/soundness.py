"""Whether the model makes lists at all: one whose scores are all NaN serves no one, however well its process runs.

Invariant: requests of users alone decide nothing. Only after `MANY` lists in a row have failed by their scores does the server ask for a
list of its own, for the history that every start is warmed up with, and only if that fails too does it count the model as making no lists.
Reason: one user whose history meets a damaged embedding, and who tries again and again, must not take the server from all others. The
server's own list is asked for again and again, so a model that recovers is noticed where no requests come any more; any list that is made
ends the doubt.
"""

import logging

from server.catalogs.proof import ask
from server.catalogs.store import CatalogStore
from server.engine.client import EngineClient
from server.errors import ScoresNotFinite, ServerError
from server.ticks import tick
from server.try_again import EngineUnavailable

MANY = 8
LOOK_TICKS = 10

logger = logging.getLogger(__name__)


class Soundness:
    """Watches the lists that one engine makes."""

    def __init__(self, catalogs: CatalogStore, engine: EngineClient) -> None:
        self._catalogs, self._engine = catalogs, engine
        self._is_unsound = False

    def check(self) -> None:
        """Check that the model makes lists.

        Raises:
            EngineUnavailable: it makes none.
        """
        if self._is_unsound and self._in_doubt:
            raise EngineUnavailable("The model's scores are not finite (NaN or infinite), so it makes no lists.")

    @property
    def _in_doubt(self) -> bool:
        """True if so many lists in a row have failed by their scores that the model may make none."""
        return self._engine.supervisor.heartbeat.not_finite >= MANY

    async def watch(self) -> None:
        """Ask for a list whenever there is doubt, until cancelled."""
        while True:
            await tick(LOOK_TICKS)
            self._is_unsound = self._in_doubt and await self._own_list_fails()

    async def _own_list_fails(self) -> bool:
        """Ask for a list; True if it fails by its scores."""
        try:
            with self._catalogs.lease() as served:
                await ask(self._engine, served.handle, 0, 1)
        except ScoresNotFinite:
            if not self._is_unsound:
                logger.error("the model makes no lists: its scores are not finite (NaN or infinite), whatever is asked")
            return True
        except (ServerError, TimeoutError):
            pass  # It says nothing of the scores.
        return False
