"""What is stored of one user, read for a command."""

import asyncio
from dataclasses import dataclass

from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError
from server.errors import HistoryDamaged
from server.histories import StoredUser, check_there, open_history_store
from server.lists.users import KnownUser, known_user
from server.schemas.given import GivenUser
from server.try_again import HistoryUnavailable

# Longer than a request waits: the only operation connects first, and nobody has a deadline.
_SECONDS = 10.0


class StoredHistoryError(SetupError):
    """There is no stored history to work with; the message is a sentence."""


@dataclass(frozen=True)
class StoredHistory:
    """A user with a stored history.

    Attributes:
        user: what is known of the user, with the items that the catalog has.
        left_out: number of items that it does not have.
    """

    user: KnownUser
    left_out: int

    @classmethod
    def read(cls, url: str, user: str, catalog: Catalog, *, max_events: int) -> "StoredHistory":
        """Read a user from the store of `url`.

        Raises:
            StoredHistoryError: the store is not there or can't be read, or has no items of the user that the catalog has.
        """

        async def read() -> StoredUser:
            check_there(url)
            store = open_history_store(url, timeout_seconds=_SECONDS, max_events=max_events)
            try:
                return await store.read_user(user)
            finally:
                await store.close()

        try:
            stored = asyncio.run(read())
        except (ValueError, HistoryUnavailable, HistoryDamaged) as error:
            raise StoredHistoryError(str(error)) from error
        if not stored.events:
            raise StoredHistoryError(f"There is no user {user!r}: no events are stored for that id.")
        known = known_user(catalog, GivenUser(), max_events, stored=stored, user_id=user)
        if not known.met:
            raise StoredHistoryError(f"None of the stored items of user {user!r} is in the catalog (version {catalog.version}).")
        return cls(known, len(stored.events) - len(known.met))
