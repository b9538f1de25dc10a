"""What every history store promises: `Event`, `HistoryStore` and how much is kept (`Retention`).

Invariant: after any sequence of appends a history is its newest `max_events` distinct events, ordered by timestamp and, at equal
timestamps, by arrival; and appending an event again under its `event_id` changes nothing. Reason: clients retry and deliver late, and a
recommendation must not depend on how often or in which order the network handed their events over.

What is remembered to keep that promise: the ids of the events a history shows, and of those that fell off it while they tie with the oldest
it shows (at most `max_events` more; they are stored but never read). An event that fell off for being older needs no memory: appended again
it falls off again. So a retry can only show if more than twice `max_events` events of one user share one timestamp, or if it comes with
another timestamp than the first time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

DEFAULT_MAX_EVENTS = 1000
_CENTURY_SECONDS = 100 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Event:
    """One item that a user met.

    `timestamp` is in seconds since the epoch; `event_id` makes appending it again harmless. Raises ValueError for a timestamp that is not
    finite.
    """

    item_id: str
    timestamp: float
    event_id: str | None = None

    def __post_init__(self) -> None:
        # NaN and infinity have no place in an order, and SQLite would store NaN as NULL.
        if not math.isfinite(self.timestamp):
            raise ValueError(f"The timestamp of item {self.item_id!r} must be a finite number of seconds, not {self.timestamp}.")


@dataclass(frozen=True, slots=True)
class Retention:
    """How many events a user's history shows, and for how many seconds after its last append (None: for ever).

    Raises ValueError for what keeps nothing.
    """

    max_events: int = DEFAULT_MAX_EVENTS
    ttl_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.max_events < 1:
            raise ValueError(f"max_events must be at least 1, not {self.max_events}.")
        if self.ttl_seconds is not None and not 0.001 <= self.ttl_seconds <= _CENTURY_SECONDS:
            raise ValueError(
                f"ttl_seconds must lie between 0.001 and a century, not be {self.ttl_seconds:g}; None keeps histories for ever."
            )

    def window(self, limit: int | None) -> int:
        """How many events a read of `limit` may return. Raises ValueError for a negative limit."""
        if limit is None:
            return self.max_events
        if limit < 0:
            raise ValueError(f"limit must not be negative, but is {limit}.")
        return min(limit, self.max_events)


class HistoryStore(Protocol):
    """A user's events, oldest first. User, item and event ids are any text that UTF-8 can carry.

    Every method but `close` raises `HistoryUnavailable` when the store cannot answer in time. An append that raised may still have been
    stored, wholly or not at all for any one user: repeat it, with event ids, to be sure.
    """

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        """Add events, given in any order, durably before it returns; the time to live starts anew unless `events` is empty.

        Returns how many of them the history shows now that it did not before: repeats do not count, nor do events too old for a full one.
        """
        ...

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        """`append` for many users, for bulk loads: the sum of what `append` returns; if it raises, some users may have been stored."""
        ...

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        """The newest `limit` events (None: all that are kept), oldest first; none for an unknown user.

        Raises ValueError for a negative limit.
        """
        ...

    async def delete(self, user_id: str) -> bool:
        """Forget the user, event ids included; True if there was something to forget."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...

    async def close(self) -> None:
        """Give back files and connections; call it once, and nothing after it."""
        ...
