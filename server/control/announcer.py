"""`Announcer`: says how this replica stands, and waits for the others.

Invariant: a replica says that it has applied a position only after it has, and at once, so a change that waits for all replicas waits no
longer than the slowest of them takes.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Literal

from server.control.base import Position, Replica
from server.control.follower import Follower
from server.control.names import is_dead
from server.errors import ServerError
from server.ticks import until_tick
from server.try_again import ControlUnavailable, NotEverywhere

_EVERY_TICKS = 10
_LOOK_SECONDS = 0.02
EVERYWHERE_SECONDS = 10.0


class Announcer:
    """Announces one replica."""

    def __init__(self, follower: Follower, served: Callable[[], str], check: Callable[[], None]) -> None:
        """
        Args:
            served: tells the version of the catalog that is served.
            check: raises ServerError while the replica is not ready.
        """
        self._follower, self._served, self._check = follower, served, check
        self._started_at = time.time()
        self._software = version("atspeed-server")

    def replica(self) -> Replica:
        """The announcement of this replica, as it is now."""
        problem = self._follower.problem
        try:
            self._check()
            ready = True
        except ServerError as error:
            ready, problem = False, problem or str(error)
        position = self._follower.applied
        return Replica(self._follower.name, position, ready, problem, self._started_at, self._software, self._served())

    async def announce(self) -> None:
        """Say it again and again, until cancelled."""
        while True:
            moved = self._follower.next_move()
            # Where it can't be told, the follower says so.
            with suppress(ControlUnavailable):
                await self._follower.store.announce(self.replica())
            await asyncio.wait({moved}, timeout=until_tick(_EVERY_TICKS))
            moved.cancel()

    async def living(self) -> list[Replica]:
        """All replicas that live, this one as it is now.

        Raises:
            ControlUnavailable: the store does not tell.
        """
        told = {each.name: each for each in await self._follower.store.replicas() if not is_dead(each.name)}
        return list((told | {self._follower.name: self.replica()}).values())

    async def wait_for(self, whom: Literal["all"] | None) -> None:
        """Wait until others have what this replica has applied, or for nobody; raises as `everywhere`."""
        if whom is not None:
            await self.everywhere(self._follower.applied)

    async def everywhere(self, position: Position) -> None:
        """Return when all replicas that live have applied a position.

        Raises:
            NotEverywhere: some have not, for so long; the sentence names them.
        """
        ends = time.monotonic() + EVERYWHERE_SECONDS
        while True:
            try:
                lacking = [each for each in await self.living() if not each.position.has(position)]
                sentence = "; ".join(f"{each.name} ({each.problem or 'it is behind'})" for each in lacking)
            except ControlUnavailable:
                lacking, sentence = [], "the control store does not tell who"
            else:
                if not lacking:
                    return
            if time.monotonic() > ends:
                raise NotEverywhere(f"The change is stored, as revision {position.revision}, but not everywhere in time: {sentence}.")
            await asyncio.sleep(_LOOK_SECONDS)
