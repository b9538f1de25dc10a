"""`MemoryHistoryStore`: histories in the memory of this process, for tests and trials.

Invariant: users are in the order of their last append, and all have the same time to live, so expired users are at the front. Every
operation can therefore remove them without a background task or a scan.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from server.histories.base import Event, Retention
from server.histories.history import History


class MemoryHistoryStore:
    """A `HistoryStore` of Python objects.

    It never raises `HistoryUnavailable`, and no method awaits, so each is atomic on the event loop.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._histories: OrderedDict[str, tuple[History, float | None]] = OrderedDict()

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        self._forget_expired()
        if not events:
            return 0
        ttl_seconds = self._retention.ttl_seconds
        history = self._histories[user_id][0] if user_id in self._histories else History()
        self._histories[user_id] = history, None if ttl_seconds is None else time.monotonic() + ttl_seconds
        self._histories.move_to_end(user_id)
        return history.add(events, self._retention.max_events)

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        return sum([await self.append(user_id, events) for user_id, events in histories.items()])

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        self._forget_expired()
        window = self._retention.window(limit)
        history, _ = self._histories.get(user_id, (None, None))
        return [] if history is None else history.newest(window)

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
            user_id, (_, expires_at) = next(iter(self._histories.items()))
            if expires_at is None or expires_at > now:
                return
            del self._histories[user_id]
