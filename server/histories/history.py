"""`History`: the events of one user and the rules of what is kept, for the stores that hold a history as a whole.

Invariant: `entries` are the newest events by arrival, in order of time; arrival numbers count the events without repeats, so that what
falls off and what is remembered follow from the number of the last one. `server.histories.redis` has the same rules as a script of Redis.
"""

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from server.histories.base import Event

# Timestamp, arrival, item id, event id. Arrivals are unique, so no comparison goes beyond them.
Entry = tuple[float, int, str, str | None]


class History(msgspec.Struct, array_like=True):
    """The history of one user.

    Attributes:
        arrivals: number of events that have arrived, without repeats; the next one's arrival number.
        entries: the events that are kept, in order of time and, at equal timestamps, of arrival.
        fallen: arrival and id of events that have fallen off and whose repeats are still recognised.
    """

    arrivals: int = 0
    entries: list[Entry] = []
    fallen: list[tuple[int, str]] = []

    def add(self, events: Sequence[Event], max_events: int) -> int:
        """Add events that arrive together, the oldest of them first; return how many of them are kept and no repeats."""
        before = self.arrivals
        known = {event_id: arrival for arrival, event_id in self.fallen}
        known |= {event_id: arrival for _, arrival, _, event_id in self.entries if event_id is not None}
        for event in sorted(events, key=attrgetter("timestamp")):
            if event.event_id is not None:
                if known.get(event.event_id, -1) >= max(0, self.arrivals - 2 * max_events):
                    continue
                known[event.event_id] = self.arrivals
            self.entries.append((event.timestamp, self.arrivals, event.item_id, event.event_id))
            self.arrivals += 1
        self._forget(max_events)
        self.entries.sort()
        return min(self.arrivals - before, max_events)

    def newest(self, count: int) -> list[Event]:
        """The newest `count` events by time, oldest first."""
        shown = self.entries[max(0, len(self.entries) - count) :]
        return [Event(item_id, timestamp, event_id) for timestamp, _, item_id, event_id in shown]

    def _forget(self, max_events: int) -> None:
        shown, remembered = self.arrivals - max_events, self.arrivals - 2 * max_events
        self.fallen += [(arrival, event_id) for _, arrival, _, event_id in self.entries if arrival < shown and event_id is not None]
        self.fallen = [(arrival, event_id) for arrival, event_id in self.fallen if arrival >= remembered]
        self.entries = [entry for entry in self.entries if entry[1] >= shown]
