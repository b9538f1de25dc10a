"""The users of requests: what the store has of them, beside what the request brings.

Invariants: the prompt is made of all that is stored, whatever else a request asks for, so scores and lists of one user have the same
prompt. Reading a stored user takes one round trip; a second one is made only where far more of the user's newest items have left the
catalog than of other users'. A store that does not answer within the time that it may take is counted as failed, however little time the
client gives.
"""

import asyncio
import math
import time
from collections.abc import Collection

from drafting.prompts.builder import PromptBuilder
from server.catalogs.served import ServedCatalog
from server.errors import EmptyHistory, StaleHistory, UserNotFound
from server.histories import HistoryStore, StoredUser
from server.lists.users import KnownUser, known_user, none_known, suffices
from server.metrics.registry import Metrics
from server.schemas.given import AskedUser
from server.try_again import HistoryUnavailable

# So many times the window of the model is read of a stored history, because items of some events have left the catalog. The depth grows as
# the share of known items among the events read lately falls, down to this share.
_READ_AHEAD = 2
_LEAST_SHARE = 1 / 16
# Weight of one user in the share of known items.
_WEIGHT = 0.1


class UserReader:
    """Finds out what is known of the user of a request."""

    def __init__(self, histories: HistoryStore, metrics: Metrics, patience_seconds: float) -> None:
        """
        Args:
            patience_seconds: time that the store has for an operation.
        """
        self._histories = histories
        self._metrics = metrics
        self._patience_seconds = patience_seconds
        # Reads that may go on when nobody waits for them any more.
        self._left: set[asyncio.Task[StoredUser]] = set()
        # The share of the events read lately whose items are in the catalog of this handle.
        self._handle, self._share = "", 1.0

    async def read(
        self,
        body: AskedUser,
        served: ServedCatalog,
        builder: PromptBuilder,
        deadline: float,
        window: int = 0,
        *,
        whole: bool = False,
        thinks: bool = False,
    ) -> KnownUser:
        """What is known of the user of a request.

        Args:
            builder: builds the prompts of `served`.
            deadline: monotonic seconds.
            window: the newest items of the history that are read beside the prompt.
            whole: True if the whole history is read.
            thinks: True if the target writes text behind the prompt.

        Raises:
            UserNotFound, EmptyHistory, StaleHistory: nothing is stored or brought, or nothing that the catalog has, and what else the
                request brings is not enough.
            HistoryUnavailable, HistoryDamaged: the store can't be read.
            TimeoutError: the deadline has passed, before the store had the time that it may take.
        """
        reads = builder.reads_of(thinks=thinks)
        # Whether there are more items than the model reads matters too.
        most, kinds = builder.max_items + 1, {kind: newest + 1 for kind, newest in builder.kinds.items()}
        if body.user_id is None:
            return _brought(body, known_user(served.catalog, body, most, kinds), reads)
        # How far back the events of a kind lie is not known.
        is_apart = not builder.kinds.keys() <= body.behaviours.keys()
        limit = None if whole or is_apart else self._depth(served, max(builder.max_items, window))
        stored = await self._stored(body.user_id, limit, deadline)
        is_enough = suffices(body, reads)
        if not stored.events and not is_enough:
            raise UserNotFound(body.user_id)
        user = known_user(served.catalog, body, most, kinds, stored, body.user_id)
        if stored.events and limit is not None:
            self._learn(served, len(user.history) / len(stored.events))
        # Items that fill the window may lie deeper, and whoever reads the whole history would see them.
        if limit is not None and len(stored.events) >= limit and len(user.history) < max(most, window):
            user = known_user(served.catalog, body, most, kinds, await self._stored(body.user_id, None, deadline), body.user_id)
        if not user.state.events and not suffices(user.state, reads):
            raise StaleHistory(f"None of the stored items of user {body.user_id!r} is in the catalog (version {served.name}).")
        return user

    def _depth(self, served: ServedCatalog, window: int) -> int:
        """How many of a user's newest events are read to find so many that the catalog has."""
        share = self._share if self._handle == served.handle else 1.0
        return math.ceil(_READ_AHEAD * window / max(share, _LEAST_SHARE))

    def _learn(self, served: ServedCatalog, share: float) -> None:
        if self._handle != served.handle:
            self._handle, self._share = served.handle, 1.0
        self._share += _WEIGHT * (share - self._share)

    async def _stored(self, user_id: str, limit: int | None, deadline: float) -> StoredUser:
        seconds = deadline - time.monotonic()
        if seconds >= self._patience_seconds:
            return await self._read_within(seconds, user_id, limit)
        if seconds <= 0:
            raise TimeoutError
        # That the client's time is over is no failure of the store: whether it fails is seen by letting it answer.
        reading = asyncio.create_task(self._read_within(self._patience_seconds, user_id, limit))
        self._left.add(reading)
        reading.add_done_callback(self._end)
        async with asyncio.timeout(seconds):
            return await asyncio.shield(reading)

    async def _read_within(self, seconds: float, user_id: str, limit: int | None) -> StoredUser:
        with self._metrics.history_operation("read"):
            try:
                async with asyncio.timeout(seconds):
                    return await self._histories.read_user(user_id, limit)
            except TimeoutError as error:
                raise HistoryUnavailable("The history store did not answer within the timeout of a request.") from error

    def _end(self, reading: "asyncio.Task[StoredUser]") -> None:
        self._left.discard(reading)
        if not reading.cancelled():
            # It has been counted; whoever still waits is told, and Python need not log that nobody was.
            reading.exception()


def _brought(body: AskedUser, user: KnownUser, reads: Collection[str]) -> KnownUser:
    """The user whom a request itself brings. Raises EmptyHistory, StaleHistory."""
    if not user.state.events and not suffices(user.state, reads):
        if body.history or (user.unknown and not user.met):
            raise StaleHistory(none_known(user.unknown))
        if body.history is not None:
            raise EmptyHistory
    return user
