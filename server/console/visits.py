"""`Visits`: the users that lists were made for, so that they can be chosen again.

Invariant: they are kept in the browser's tab (its `sessionStorage`), as the key is, and nowhere here. So a visitor sees those of no other,
and they are gone with the tab or with its key.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from nicegui import Client

from server.client import AtspeedError, NotFound
from server.console.typed import json_of
from server.schemas.recommendations import RecommendationAnswer

MOST_USERS = 50
_NAME = "atspeed-users"
FORGET_VISITS = f"sessionStorage.removeItem('{_NAME}')"
_READ_SECONDS = 30.0


class Visits:
    """The users of one tab, for one visit of a page."""

    def __init__(self, page: Client) -> None:
        self._page = page
        self._kept: dict[str, None] | None = None
        self._reading = asyncio.Lock()

    async def users(self) -> list[str]:
        """The newest first."""
        return list(reversed(await self._known()))

    async def answered(self, body: Mapping[str, Any], answer: RecommendationAnswer) -> None:
        """Note the user of a request for a list once there is one; of popular items it says nothing of a user, who may be deleted."""
        if (user_id := body.get("user_id")) is None:
            return
        if answer.source is None:
            await self.note(user_id)
        else:
            await self.drop(user_id)

    async def refused(self, body: Mapping[str, Any], error: AtspeedError) -> None:
        """Drop the user of a request if the server does not know them."""
        if (user_id := body.get("user_id")) is not None and isinstance(error, NotFound):
            await self.drop(user_id)

    async def note(self, user_id: str) -> None:
        """Note a user that the server has answered for; the oldest is forgotten."""
        users = await self._known()
        users.pop(user_id, None)
        users[user_id] = None
        if len(users) > MOST_USERS:
            del users[next(iter(users))]
        self._keep(users)

    async def drop(self, user_id: str) -> None:
        """Drop a user of whom the server knows nothing, or no more."""
        users = await self._known()
        if user_id in users:
            del users[user_id]
            self._keep(users)

    async def _known(self) -> dict[str, None]:
        """The users, the oldest first; what the tab had before this page is read once."""
        async with self._reading:
            if self._kept is None:
                try:
                    text = await self._page.run_javascript(f"sessionStorage.getItem('{_NAME}')", timeout=_READ_SECONDS)
                except TimeoutError:
                    # Nothing else waits for a browser that is so slow.
                    text = None
                self._kept = dict.fromkeys(_users_of(text))
        return self._kept

    def _keep(self, users: dict[str, None]) -> None:
        self._page.run_javascript(f"sessionStorage.setItem('{_NAME}', {json.dumps(json.dumps(list(users)))})")


def _users_of(text: object) -> list[str]:
    """The users in what a tab has kept; none if it is not what is kept here."""
    try:
        users = json_of(text) if isinstance(text, str) else []
    except ValueError:
        return []
    return [user for user in users if isinstance(user, str)][-MOST_USERS:] if isinstance(users, list) else []
