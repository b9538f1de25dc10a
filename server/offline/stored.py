"""The stored history of one user, read for a command."""

import asyncio
from dataclasses import dataclass

from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError
from server.errors import HistoryUnavailable
from server.histories import open_history_store


class StoredHistoryError(SetupError):
    """There is no stored history to work with; the message is a sentence."""


@dataclass(frozen=True)
class StoredHistory:
    """Items of a user's events, oldest first.

    Attributes:
        items: the items that the catalog has.
        left_out: number of items that it does not have.
    """

    items: list[str]
    left_out: int

    @classmethod
    def read(cls, url: str, user: str, catalog: Catalog, *, timeout_ms: int, max_events: int) -> "StoredHistory":
        """Read the history of a user from the store of `url`.

        Raises:
            StoredHistoryError: the store can't be read, or has no items of the user that the catalog has.
        """

        async def read() -> list[str]:
            store = open_history_store(url, timeout_seconds=timeout_ms / 1000, max_events=max_events)
            try:
                return [event.item_id for event in await store.read(user)]
            finally:
                await store.close()

        try:
            stored = asyncio.run(read())
        except (ValueError, HistoryUnavailable) as error:
            raise StoredHistoryError(str(error)) from error
        if not stored:
            raise StoredHistoryError(f"There is no user {user!r}: no events are stored for that id.")
        known = [item for item, index in zip(stored, catalog.indices_of(stored).tolist(), strict=True) if index >= 0]
        if not known:
            raise StoredHistoryError(f"None of the stored items of user {user!r} is in the catalog (version {catalog.version}).")
        return cls(known, len(stored) - len(known))
