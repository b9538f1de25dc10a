"""`Reader`: one replica's copy of the control state, as it was read last, and what it knows of other replicas.

Invariant: the copy is what the store held at one position. It was confirmed, so that no failover takes back what it says; only a replica
that begins, and has nothing else to begin with, takes what can't be confirmed at that moment. No part of it is damaged, so that a backup of
it can be restored.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from server.control.base import NOWHERE, ControlStore, Replica, State, Write
from server.control.names import is_dead, may_be_former
from server.control.records import Record, checked
from server.try_again import ControlConflict, ControlEmpty, ControlLost, ControlUnavailable

# Longer than one that is silent counts for alive.
FORMER_SECONDS = 6.0
_FORMER_LOOK_SECONDS = 0.2

logger = logging.getLogger(__name__)


class Applier(Protocol):
    """Makes of a replica what the state says."""

    async def initial(self) -> Mapping[str, bytes]:
        """The values that an empty store is filled with, from this replica's start."""
        ...

    async def apply(self, record: Record) -> None:
        """Become what the state says, or raise a ServerError and stay; the lock that changes need is held."""
        ...

    @property
    def has_more(self) -> bool:
        """True if there is something to do although nothing was written."""
        ...


class Reader:
    """Reads one store.

    Attributes:
        name: name of this replica, which no other has.
        applier: tells what an empty store is filled with.
        record: the state as this replica has read it, or written it, last; `values` are the same in the store's form.
        read_position: position of the store up to which the copy was read.
        asked_at: when the store was asked for it last, by the monotonic clock.
        away_since: seconds since 1970 since when the store can't be read; None if it can.
        lost: True if the store has lost its state.
    """

    def __init__(self, store: ControlStore, name: str, settle_seconds: float) -> None:
        """See `Follower`."""
        self.store, self.name = store, name
        self._settle_seconds = settle_seconds
        self.applier: Applier | None = None
        self.record = Record()
        self.values: dict[str, bytes] = {}
        self.read_position = NOWHERE
        self.asked_at = time.monotonic()
        self.away_since: float | None = None
        self.lost = False

    async def read_on(self, *, begins: bool = False) -> None:
        """Read what was written since, and apply none of it; fill a store that is empty.

        Args:
            begins: read what there is, also where that can't be confirmed.

        Raises:
            ControlUnavailable: the store does not answer, does not confirm what it holds, or holds what is damaged.
            ControlLost, ControlEmpty, ControlConflict: it has no state, or one that is being replaced.
        """
        asked_at = time.monotonic()
        try:
            if begins or self.read_position == NOWHERE or await self.store.position() != self.read_position:
                is_confirmed = await self._read_more(begins=begins)
                if not is_confirmed:
                    return
        except ControlUnavailable as error:
            raise self.away(error) from error
        if self.away_since is not None:
            logger.info("the control store answers again")
        self.away_since, self.lost, self.asked_at = None, False, asked_at

    async def is_alone(self, *, ready: bool = False) -> bool:
        """True if no other replica lives; with `ready`, if none is ready.

        With `ready`, one that may be this one before it was started again is waited for to be silent.
        """
        ends = time.monotonic() + FORMER_SECONDS
        while others := [each for each in await self.others() if each.ready or not ready]:
            if not ready or not all(may_be_former(each.name) for each in others) or time.monotonic() > ends:
                return False
            await asyncio.sleep(_FORMER_LOOK_SECONDS)
        return True

    async def serving(self, version: str) -> list[str]:
        """The names of other replicas that still serve a version, as they have said last. Raises ControlUnavailable."""
        return [each.name for each in await self.others() if each.version == version]

    async def _read_more(self, *, begins: bool) -> bool:
        """Read what has come; False if that is not confirmed."""
        is_confirmed = True
        writes = None if begins or self.read_position == NOWHERE else await self.store.writes(self.read_position)
        if writes is None:
            state = await self._read_state()
            try:
                writes = await self.store.writes(state.position)
            except ControlUnavailable as error:
                if not begins:
                    raise
                # Who has nothing to go on with begins with what there is, and can change nothing.
                logger.warning("what the control store holds may not last: %s", error)
                is_confirmed, writes = False, []
            if writes is None:
                raise ControlConflict
            record = await asyncio.to_thread(checked, state.values)
            self.values, self.record, self.read_position = dict(state.values), record, state.position
        for write in writes:
            # Tried by itself, so that a write of which a part is damaged leaves the copy as it is.
            await asyncio.to_thread(checked, write.changes, self.record.form)
            self.take(write)
        return is_confirmed

    async def _read_state(self) -> State:
        state = await self.store.state()
        if state is None and self.read_position != NOWHERE:
            if not self.lost:
                logger.error("the control store has lost its state, which this server still has: nothing can be changed")
            self.lost = True
            raise ControlLost
        if state is None and self._settle_seconds:
            await asyncio.sleep(self._settle_seconds)
            state = await self.store.state()
        if state is None:
            if others := [each for each in await self.others() if each.position != NOWHERE]:
                raise ControlEmpty(len(others))
            assert self.applier is not None
            state = await self.store.create(await self.applier.initial())
        return state

    async def others(self) -> list[Replica]:
        """The other replicas that live. Raises ControlUnavailable."""
        return [each for each in await self.store.replicas() if each.name != self.name and not is_dead(each.name)]

    def take(self, write: Write) -> None:
        """Take a write of this replica, or one that was checked, into the copy."""
        for key, value in write.changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self.record.take(write.changes)
        self.read_position = write.position

    def away(self, error: ControlUnavailable) -> ControlUnavailable:
        """Note that the store can't be read, and return the error."""
        if self.away_since is None:
            logger.error("the control store is away, so nothing can be changed: %s", error)
            self.away_since = time.time()
        return error
