"""`History`: what is stored of one user and the rules of what is kept, for the stores that hold it as a whole.

Invariant: `entries` are the newest events by arrival, in order of time; arrival numbers count the events without repeats, so that what
is remembered follows from the number of the last one. `server.histories.redis_scripts` has the same rules as scripts of Redis.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter

import msgspec

from drafting.prompts.user_state import Scalar, Value
from server.histories.base import Event, EventChoice

Profile = dict[str, Scalar | list[Scalar]]


class Entry(msgspec.Struct, array_like=True, order=True):
    """An event with the number of its arrival. Arrivals are unique, so no comparison goes beyond them."""

    timestamp: float
    arrival: int
    item_id: str
    event_id: str | None
    kind: str | None = None
    value: float | None = None
    attributes: dict[str, Scalar] = {}

    def event(self) -> Event:
        """The event as it was given."""
        return Event(self.item_id, self.timestamp, self.event_id, self.kind, self.value, self.attributes)

    def is_one_of(self, chosen: EventChoice) -> bool:
        """True if it is one of the events that are chosen."""
        pairs = (chosen.event_id, self.event_id), (chosen.item_id, self.item_id), (chosen.timestamp, self.timestamp)
        return all(wanted is None or wanted == own for wanted, own in pairs)


class History(msgspec.Struct, array_like=True):
    """What is stored of one user.

    Attributes:
        arrivals: number of events that have arrived, without repeats; the next one's arrival number.
        entries: the events that are kept, in order of time and, at equal timestamps, of arrival.
        fallen: arrival and id of events that have fallen off or were deleted and whose repeats are still recognised.
        profile: the user's profile; None if there is none.
    """

    arrivals: int = 0
    entries: list[Entry] = []
    fallen: list[tuple[int, str]] = []
    profile: Profile | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing is stored, as for an unknown user."""
        return not self.entries and self.profile is None

    def add(self, events: Sequence[Event], max_events: int) -> int:
        """Add events that arrive together, the oldest of them first; return how many of them are kept and no repeats."""
        before = self.arrivals
        there = [(entry.arrival, entry.event_id) for entry in self.entries if entry.event_id is not None]
        known = {event_id: arrival for arrival, event_id in sorted(self.fallen + there)}
        for event in sorted(events, key=attrgetter("timestamp")):
            if event.event_id is not None:
                if known.get(event.event_id, -1) >= max(0, self.arrivals - 2 * max_events):
                    continue
                known[event.event_id] = self.arrivals
            entry = Entry(
                timestamp=event.timestamp,
                arrival=self.arrivals,
                item_id=event.item_id,
                event_id=event.event_id,
                kind=event.kind,
                value=event.value,
                attributes=dict(event.attributes),
            )
            self.entries.append(entry)
            self.arrivals += 1
        self._forget(max_events)
        self.entries.sort()
        return min(self.arrivals - before, max_events)

    def remove(self, chosen: EventChoice) -> int:
        """Remove events; return their number."""
        gone = [entry for entry in self.entries if entry.is_one_of(chosen)]
        if gone:
            self.entries = [entry for entry in self.entries if not entry.is_one_of(chosen)]
            self.fallen += [(entry.arrival, entry.event_id) for entry in gone if entry.event_id is not None]
        if not self.entries:
            self.arrivals, self.fallen = 0, []
        return len(gone)

    def newest(self, count: int) -> list[Event]:
        """The newest `count` events by time, oldest first."""
        return [entry.event() for entry in self.entries[max(0, len(self.entries) - count) :]]

    def _forget(self, max_events: int) -> None:
        arrivals = sorted(entry.arrival for entry in self.entries)
        shown, remembered = arrivals[-max_events:][0], self.arrivals - 2 * max_events
        self.fallen += [(entry.arrival, entry.event_id) for entry in self.entries if entry.arrival < shown and entry.event_id is not None]
        self.fallen = [(arrival, event_id) for arrival, event_id in self.fallen if arrival >= remembered]
        self.entries = [entry for entry in self.entries if entry.arrival >= shown]


def own_copy(profile: Mapping[str, Value]) -> Profile:
    """A profile that its giver no longer holds."""
    return {name: value if isinstance(value, str | int | float) else list(value) for name, value in profile.items()}
