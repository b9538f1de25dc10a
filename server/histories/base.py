"""The contract of history stores: `Event`, `StoredUser`, `Retention` and `HistoryStore`.

Invariant: after any sequence of appends a history is its newest `max_events` distinct events by arrival, in order of their timestamps and,
at equal timestamps, of arrival; events of one append arrive in the order of their timestamps. Appending an event again under its `event_id`
changes nothing. Clients retry and deliver late, so lists must not depend on the number of deliveries. Arrival decides what is kept, because
timestamps come from clocks: after one event of a wrong clock, no event would ever be newer than what is there.

Stores remember the ids of the newest 2 * `max_events` arrivals. An event that is repeated later than that is taken for a new one. An event
that is deleted is no longer counted, but its id is remembered as if it were there, so that no late retry brings it back. When a user has no
event left, no id is remembered.

Events and profile of a user are one unit: they are read together, kept for the same time and deleted together.

A store never silently shows less than it was given: what it can't read any more is a `HistoryDamaged`, or is reported as damage.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from drafting.prompts.user_state import Scalar, Value

logger = logging.getLogger(__name__)

# Takes what was found damaged (`file` or `event`) and a sentence about it, from any thread.
DamageReport = Callable[[str, str], None]
DEFAULT_MAX_EVENTS = 1000
_CENTURY_SECONDS = 100 * 366 * 86400


def log_damage(found: str, sentence: str) -> None:
    """Say in the log that something stored is damaged."""
    logger.error("%s", sentence)


class Event(msgspec.Struct, frozen=True):
    """One interaction of a user with an item; every list for a stored user makes some dozens of them.

    Attributes:
        timestamp: seconds since the epoch, finite.
        event_id: identity of the event; appending an event again under its id changes nothing.
        kind: what was done, such as `watch` or `buy`; None if that was not said.
        value: how much of it, such as a rating or seconds, finite; None if that was not said.
        attributes: what else is known of the event, by name.
    """

    item_id: str
    timestamp: float
    event_id: str | None = None
    kind: str | None = None
    value: float | None = None
    attributes: Mapping[str, Scalar] = {}

    def __post_init__(self) -> None:
        # NaN and infinity have no place in an order, and SQLite would store NaN as NULL.
        if not math.isfinite(self.timestamp):
            raise ValueError(f"The timestamp of item {self.item_id!r} must be a finite number of seconds, not {self.timestamp}.")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"The value of an event with item {self.item_id!r} must be a finite number.")


@dataclass(frozen=True, slots=True)
class EventChoice:
    """Events of one user: those of which all is true that is not None."""

    event_id: str | None = None
    item_id: str | None = None
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What is stored of one user.

    Attributes:
        events: oldest first, as many as were asked for.
        profile: what is known of the user, by name; None if there is no profile.
    """

    events: list[Event]
    profile: Mapping[str, Value] | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits of a history.

    Attributes:
        max_events: number of events that a history keeps, at least 1.
        ttl_seconds: seconds to keep what is stored of a user after the last append or profile; None keeps it for ever. It holds for
            a user from the next of these on.
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
        """Maximum number of events of a read with this limit. Raises ValueError for a negative limit."""
        if limit is None:
            return self.max_events
        if limit < 0:
            raise ValueError(f"limit must not be negative, but is {limit}.")
        return min(limit, self.max_events)


class HistoryStore(Protocol):
    """The events of users, oldest first, and their profiles. All texts are any that UTF-8 can encode, numbers are finite, and integers
    lie within 64 bits.

    Every method but `close` raises `HistoryUnavailable` if the store does not answer in time, and those of one user raise `HistoryDamaged`
    if what is stored for that user can't be read. An append that raised may still have been stored, for each user completely or not at all:
    repeat it with event ids.
    """

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        """Add events, in any order; they are durable when this returns. Restart the user's time to live unless `events` is empty.

        Returns the number of events that are kept, so without repeated events, and never more than `max_events`.
        """
        ...

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        """Append events of many users, for bulk loads; return the sum of the results. If it raises, some users may have been stored."""
        ...

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        """Read the newest `limit` events (None: all that are kept), oldest first; none for an unknown user.

        Raises ValueError for a negative limit.
        """
        ...

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        """Read what `read` reads and the profile, in one round trip; an unknown user has neither. Raises as `read`."""
        ...

    async def sample(self, users: int, limit: int) -> list[list[Event]]:
        """Read the newest `limit` events, oldest first, of each of at most `users` users with events, whichever the store chooses.

        They are all users with events where no more than `users` are stored. What is damaged is passed over. It may take longer than other
        operations.
        """
        ...

    async def put_profile(self, user_id: str, profile: Mapping[str, Value]) -> None:
        """Store a profile in place of the one that is there; it is durable when this returns. Restart the user's time to live."""
        ...

    async def put_profiles(self, profiles: Mapping[str, Mapping[str, Value]]) -> None:
        """Put profiles of many users, for bulk loads. If it raises, some may have been stored."""
        ...

    async def delete_profile(self, user_id: str) -> bool:
        """Delete the profile of a user and leave the events and their time to live; return True if there was one."""
        ...

    async def delete_events(self, user_id: str, chosen: EventChoice) -> int:
        """Delete some events of a user, and leave the time to live; return their number. A user without events and profile is forgotten."""
        ...

    async def delete(self, user_id: str) -> bool:
        """Delete a user with all events, their ids and the profile; return True if the user was known."""
        ...

    async def limit_lives(self, tell: Callable[[int], object], pass_over: Callable[[int], object]) -> int:
        """Have users who would be kept longer go once this store's time to live is over from now; return how many, none without one.

        `tell` is given their number as they are found, `pass_over` that of users whom damage keeps from it. It can be repeated, and may
        take longer than other operations.
        """
        ...

    async def close(self) -> None:
        """Close files and connections; the store cannot be used afterwards."""
        ...
