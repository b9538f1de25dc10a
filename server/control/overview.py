"""`ControlOverview`: how this replica and the others stand, and the state as a file that can be restored.

Invariant: a backup is made of what this replica holds in memory, so it can be made while the store is away or has lost its state.
"""

import asyncio
import time
from collections import deque

from server.control import backup
from server.control.announcer import Announcer
from server.control.base import NOWHERE, Position, Replica, State
from server.control.follower import Follower, written
from server.metrics.control import ControlMetrics
from server.ticks import tick
from server.try_again import ControlUnavailable, ReplicaBehind

_LOOK_TICKS = 2
_POSITIONS = 1000


class ControlOverview:
    """The overview of one replica."""

    def __init__(self, follower: Follower, announcer: Announcer, metrics: ControlMetrics) -> None:
        self._follower, self._announcer, self._metrics = follower, announcer, metrics
        # Positions of the store, with the monotonic seconds at which they were seen first.
        self._seen: deque[tuple[Position, float]] = deque(maxlen=_POSITIONS)

    async def watch(self) -> None:
        """Note how the store moves, and measure this replica by it, until cancelled."""
        while True:
            self.look()
            await tick(_LOOK_TICKS)

    def look(self) -> None:
        """Note and measure once."""
        follower = self._follower
        if not self._seen or self._seen[-1][0] != follower.read_position:
            self._seen.append((follower.read_position, time.monotonic()))
        self._metrics.up.set(follower.away_since is None)
        self._metrics.lost.set(follower.lost)
        self._metrics.revision.set(follower.applied.revision)
        self._metrics.behind.set(self._own_behind_seconds())

    def behind_seconds(self, position: Position) -> float:
        """Seconds since when the store has, as far as this replica has read it, what a replica at `position` has not."""
        current = self._follower.read_position.generation
        newer = [at for seen, at in self._seen if seen.generation == current and not position.has(seen)]
        return time.monotonic() - newer[0] if newer else 0.0

    def _own_behind_seconds(self) -> float:
        follower = self._follower
        if not follower.begun and not follower.has_ended:
            # It takes no requests yet, however long it fetches its first version; that it can't has a metric of its own.
            return 0.0
        applied = self.behind_seconds(follower.applied)
        if follower.changing.locked() and not follower.follows:
            # The store is not asked while this replica makes a change, which may take as long as a catalog takes to load.
            return applied
        return max(applied, follower.behind_seconds())

    async def replicas(self) -> list[Replica]:
        """All replicas that live, by name; this one alone while the store does not tell of others."""
        if self._follower.away_since is not None:
            # It would have to be waited for.
            return [self._announcer.replica()]
        try:
            return sorted(await self._announcer.living(), key=lambda replica: replica.name)
        except ControlUnavailable:
            return [self._announcer.replica()]

    async def backup(self) -> bytes:
        """The state as a file.

        Raises:
            ReplicaBehind: this replica has read none yet.
        """
        if self._follower.read_position == NOWHERE:
            raise ReplicaBehind("it has not read the control store yet.")
        # A thread, as filters may be hundreds of MiB; of a copy, as what is written meanwhile must not come between.
        return await asyncio.to_thread(backup.pack, State(self._follower.read_position, dict(self._follower.values)))

    async def restore(self, file: bytes) -> Position:
        """Put the state of a file in place of what the store holds; all replicas follow.

        Raises:
            BackupRefused: it is no backup, or is damaged; nothing has changed.
            ControlUnavailable: the store does not answer; it may be restored.
        """
        saved = await asyncio.to_thread(backup.unpack, file)
        least = max(saved.position.revision, self._follower.read_position.revision)
        restored = await self._follower.store.replace(saved.values, least)
        if (told := written.get()) is not None:
            told[:] = [restored.position.revision]
        self._follower.stir()
        return restored.position
