"""`Follower`: one replica's part in the control store. It applies what is written there, in order, and is how this replica writes.

Invariant: with the lock `changing` held, a write is judged at the very position that it changes: what the store holds is applied first,
and if it moves on before the write, nothing was written, and all is judged anew. So nothing that was acknowledged, by whichever replica,
is replaced unseen. What is applied is what the newest state says, and not every step on the way there, so a replica that was slow has
no more to do than one that comes now.

A store that does not answer stops writes and nothing else: this replica goes on with what it has, and knows since when it can't know what
others have written (`behind_seconds`). A store that has lost its state is not followed into that: this replica keeps
what it has, until somebody restores it. A state of another generation, or a position that the store does not know, is taken as it is.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from server.control.base import NOWHERE, ControlStore, Position
from server.control.reader import Reader
from server.control.records import FORM, Changes
from server.errors import ServerError
from server.try_again import ControlConflict, ControlEmpty, ControlLost, ControlUnavailable, ReplicaBehind

TRIES = 20
# A replica that another was faster than pauses, at random up to so many seconds for each try so far, so that they do not meet again.
_PAUSE_SECONDS = 0.02
LOOK_SECONDS = 0.5
# A replica that has not known for longer what others have written says so.
BEHIND_SECONDS = 1.0
RETRY_SECONDS = 2.0
END_SECONDS = 2.0
# Longer than replicas take to say again that they live.
SETTLE_SECONDS = 2.0

logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
# The revision that the present request has written; a list, so that tasks which the request starts tell it too.
written: ContextVar[list[int] | None] = ContextVar("written", default=None)


class Follower(Reader):
    """Follows one store.

    Attributes:
        changing: held by whoever writes or applies, from judging until it has taken effect.
        applied: position up to which this replica has applied the store.
        problem: why this replica does not follow, as a sentence; None if it does.
        follows: True while `changing` is held to apply what others have written, and not for a change of this replica's own.
        begun: False while the server of this replica begins, until it has read what there is, and serves it.
        has_ended: set by the server once nothing follows any more: at the end, or for a fault, which the log tells.
    """

    def __init__(self, store: ControlStore, name: str, *, settle_seconds: float = 0.0) -> None:
        """
        Args:
            settle_seconds: how long an empty store is watched before a state is begun in it, so that replicas which still have the one
                that it has just lost can say that they live.
        """
        super().__init__(store, name, settle_seconds)
        self.changing = asyncio.Lock()
        self.applied = NOWHERE
        # When the store was asked last of what was applied then as all that there was.
        self._heard_at = self.asked_at
        self._refusal = ""
        self.problem: str | None = None
        self.follows = False
        self.begun = True
        self.has_ended = False
        self._moved = asyncio.Event()
        self._stirred = asyncio.Event()

    async def decide(self, judge: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Judge a change and write it, at the newest state; call it with `changing` held.

        Args:
            judge: judges, writes with `write`, and applies that; is called again if another replica has written meanwhile.

        Raises:
            ControlUnavailable: the store does not answer; the change may be there, and is followed then.
            ControlLost, ControlEmpty: it has no state.
            ReplicaBehind: this replica can't do what others have written.
            ControlConflict: others have written again and again meanwhile; nothing has changed.
        """
        for attempt in range(TRIES):
            try:
                await self.catch_up()
                return await judge()
            except ControlConflict:
                await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS * attempt))
        raise ControlConflict

    async def write(self, changes: Changes) -> None:
        """Write what was judged at the state that is applied; whoever calls applies it then, without waiting for anything.

        All that was read counts as applied from then on: whoever writes while applying has applied the rest.

        Raises:
            ControlConflict: another replica has written meanwhile; nothing was written.
            ControlUnavailable: the store does not answer; the change may be there.
        """
        asked_at = time.monotonic()
        try:
            write = await self.store.write(self.read_position, self.name, changes)
        except ControlUnavailable as error:
            if self.away_since is None and self._refusal != str(error):
                # Whether the store is away is found out by reading, which goes on where only writes are refused.
                self._refusal = str(error)
                logger.error("a change can't be stored: %s", error)
            raise
        self._refusal = ""
        self.take(write)
        self._heard_at = asked_at
        self._move()
        if (told := written.get()) is not None:
            told[:] = [self.read_position.revision]

    async def catch_up(self) -> None:
        """Apply all that the store holds; call it with `changing` held. Raises as `decide`."""
        await self.read_on()
        assert self.applier is not None
        if self.applied == self.read_position and self.problem is None and not self.applier.has_more:
            self._heard_at = self.asked_at
            return
        if self.record.form > FORM:
            raise self._behind("a later release of the server has written what this one can't read: update it.")
        try:
            await self.applier.apply(self.record)
        except (ControlUnavailable, ControlConflict):
            raise
        except ServerError as error:
            raise self._behind(str(error)) from error
        self.problem = None
        self._heard_at = self.asked_at
        self._move()

    async def follow(self) -> None:
        """Apply whatever is written, as soon as it is, until cancelled."""
        while True:
            await self._wait(await self._step())

    async def _step(self) -> float:
        """Apply what is written now; how long to wait before that is tried again, 0 if it is done."""
        self._stirred.clear()
        try:
            async with self.changing:
                self.follows = True
                await self.catch_up()
            return 0.0
        except ControlUnavailable:
            return RETRY_SECONDS / 4
        except ControlConflict:
            return _PAUSE_SECONDS
        except (ReplicaBehind, ControlLost, ControlEmpty):
            return RETRY_SECONDS
        finally:
            self.follows = False

    def behind_seconds(self) -> float:
        """For how long others may have written what this replica has not applied, as far as it knows."""
        return time.monotonic() - self._heard_at

    @property
    def is_current(self) -> bool:
        """False while this replica can't be sure that it knows what others have written, for whatever reason."""
        return self.behind_seconds() <= BEHIND_SECONDS

    def stir(self) -> None:
        """Have `follow` look for what there is to do."""
        self._stirred.set()

    async def end(self) -> None:
        """Write what this replica has decided by itself, if that is still to be done and the store answers."""
        if self.applier is None or not self.applier.has_more:
            return
        try:
            async with asyncio.timeout(END_SECONDS), self.changing:
                await self.catch_up()
        except (ServerError, TimeoutError) as error:
            logger.warning("what this server has decided by itself is not written: %s", error)

    async def reached(self, revision: int) -> None:
        """Return when this replica has applied a revision."""
        while self.applied.revision < revision:
            await self._moved.wait()

    def next_move(self) -> "asyncio.Task[bool]":
        """Ends when more is applied."""
        return asyncio.ensure_future(self._moved.wait())

    def check_begun(self) -> None:
        """Check that this replica has begun, so that it has something to show.

        Raises:
            ReplicaBehind: it is still beginning.
        """
        if not self.begun:
            self.check()

    def check(self) -> None:
        """Check that this replica does what others have written.

        Raises:
            ReplicaBehind: it does not.
        """
        self.check_following()
        if self.problem is not None:
            raise ReplicaBehind(self.problem)

    def check_following(self) -> None:
        """Check that this replica still follows what others write.

        Raises:
            ReplicaBehind: it never will again until it is restarted.
        """
        if self.has_ended:
            raise ReplicaBehind("it no longer follows them, for a fault that its log tells, and must be restarted.")

    def _behind(self, problem: str) -> ReplicaBehind:
        if self.problem != problem:
            logger.error("this server can't do what others have written, and is not ready: %s", problem)
        self.problem = problem
        return ReplicaBehind(problem)

    def _move(self) -> None:
        self.applied = self.read_position
        self._moved.set()
        self._moved = asyncio.Event()

    async def _wait(self, pause: float) -> None:
        """Wait until the store has moved on, or this replica has something to do, or it is time to try again what went wrong."""
        if self.away_since is not None:
            await asyncio.sleep(pause)
            return
        waits = {asyncio.ensure_future(self.store.wait(self._seen(), pause or LOOK_SECONDS)), asyncio.ensure_future(self._stirred.wait())}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if any(isinstance(each.exception(), ControlUnavailable) for each in done):
            await asyncio.sleep(RETRY_SECONDS / 4)

    def _seen(self) -> Position | None:
        return None if self.lost or self.read_position == NOWHERE else self.read_position
