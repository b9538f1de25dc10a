"""`MemoryHistoryStore`: histories in the memory of this process, for tests and trials.

Invariant: users are in the order of their last append, and all have the same time to live, so expired users are at the front. Every
operation can therefore remove them without a background task or a scan.
"""

import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.histories.base import Event, Retention


@dataclass(slots=True)
class _History:
    """`entries` are sorted tuples (timestamp, arrival, event); arrival numbers are unique, so events are never compared."""

    entries: list[tuple[float, int, Event]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    arrivals: int = 0
    expires_at: float | None = None

    def add(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.event_id is not None:
                if event.event_id in self.ids:
                    continue
                self.ids.add(event.event_id)
            insort(self.entries, (event.timestamp, self.arrivals, event))
            self.arrivals += 1

    def trim(self, max_events: int) -> None:
        if len(self.entries) <= max_events:
            return
        oldest_shown = self.entries[-max_events][0]
        tied = next(index for index, (timestamp, _, _) in enumerate(self.entries) if timestamp == oldest_shown)
        fallen = max(tied, len(self.entries) - 2 * max_events)
        self.ids.difference_update(event.event_id for _, _, event in self.entries[:fallen] if event.event_id is not None)
        del self.entries[:fallen]


class MemoryHistoryStore:
    """A `HistoryStore` of Python objects.

    It never raises `HistoryUnavailable`, and no method awaits, so each is atomic on the event loop.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._histories: OrderedDict[str, _History] = OrderedDict()

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        self._forget_expired()
        if not events:
            return 0
        history = self._histories.setdefault(user_id, _History())
        self._histories.move_to_end(user_id)
        if self._retention.ttl_seconds is not None:
            history.expires_at = time.monotonic() + self._retention.ttl_seconds
        first_arrival = history.arrivals
        history.add(events)
        history.trim(self._retention.max_events)
        return sum(arrival >= first_arrival for _, arrival, _ in history.entries[-self._retention.max_events :])

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        return sum([await self.append(user_id, events) for user_id, events in histories.items()])

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        self._forget_expired()
        window = self._retention.window(limit)
        history = self._histories.get(user_id)
        if history is None:
            return []
        return [event for _, _, event in history.entries[max(0, len(history.entries) - window) :]]

    async def delete(self, user_id: str) -> bool:
        self._forget_expired()
        return self._histories.pop(user_id, None) is not None

    async def ping(self) -> None:
        """Do nothing: the store is in this process."""

    async def close(self) -> None:
        self._histories.clear()

    def _forget_expired(self) -> None:
        now = time.monotonic()
        while self._histories:
            user_id, history = next(iter(self._histories.items()))
            if history.expires_at is None or history.expires_at > now:
                return
            del self._histories[user_id]
