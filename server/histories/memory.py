"""`MemoryHistoryStore`: histories in the memory of this process, for tests and trials.

Invariant: users are in the order of their last append or profile, and all have the same time to live, so expired users are at the front.
Every operation can therefore remove them without a background task or a scan.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from drafting.prompts.user_state import Value
from server.histories.base import Event, EventChoice, Retention, StoredUser
from server.histories.history import History, own_copy


class MemoryHistoryStore:
    """A `HistoryStore` of Python objects.

    It never raises `HistoryUnavailable`, and no method awaits, so each is atomic on the event loop.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._histories: OrderedDict[str, tuple[History, float | None]] = OrderedDict()

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        self._forget_expired()
        return self._renewed(user_id).add(events, self._retention.max_events) if events else 0

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        return sum([await self.append(user_id, events) for user_id, events in histories.items()])

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        return (await self.read_user(user_id, limit)).events

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        self._forget_expired()
        window = self._retention.window(limit)
        history, _ = self._histories.get(user_id, (History(), None))
        return StoredUser(history.newest(window), history.profile)

    async def sample(self, users: int, limit: int) -> list[list[Event]]:
        self._forget_expired()
        newest = (history for history, _ in reversed(self._histories.values()) if history.entries)
        return [history.newest(self._retention.window(limit)) for history in islice(newest, users)]

    async def put_profile(self, user_id: str, profile: Mapping[str, Value]) -> None:
        self._forget_expired()
        self._renewed(user_id).profile = own_copy(profile)

    async def put_profiles(self, profiles: Mapping[str, Mapping[str, Value]]) -> None:
        for user_id, profile in profiles.items():
            await self.put_profile(user_id, profile)

    async def delete_profile(self, user_id: str) -> bool:
        self._forget_expired()
        history, _ = self._histories.get(user_id, (History(), None))
        known, history.profile = history.profile is not None, None
        if known and history.is_empty:
            del self._histories[user_id]
        return known

    async def delete_events(self, user_id: str, chosen: EventChoice) -> int:
        self._forget_expired()
        history, _ = self._histories.get(user_id, (History(), None))
        removed = history.remove(chosen)
        if removed and history.is_empty:
            del self._histories[user_id]
        return removed

    async def delete(self, user_id: str) -> bool:
        self._forget_expired()
        return self._histories.pop(user_id, None) is not None

    async def limit_lives(self, tell: Callable[[int], object], pass_over: Callable[[int], object]) -> int:
        """Do nothing: nobody was stored with another time to live."""
        return 0

    async def close(self) -> None:
        self._histories.clear()

    def _renewed(self, user_id: str) -> History:
        """The history of a user whose time to live begins again."""
        ttl_seconds = self._retention.ttl_seconds
        history = self._histories[user_id][0] if user_id in self._histories else History()
        self._histories[user_id] = history, None if ttl_seconds is None else time.monotonic() + ttl_seconds
        self._histories.move_to_end(user_id)
        return history

    def _forget_expired(self) -> None:
        now = time.monotonic()
        while self._histories:
            user_id, (_, expires_at) = next(iter(self._histories.items()))
            if expires_at is None or expires_at > now:
                return
            del self._histories[user_id]
