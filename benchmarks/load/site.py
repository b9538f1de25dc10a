"""The server that is loaded, as its users see it.

Invariant: only a server on this machine is loaded unless the caller says otherwise, because a generator pointed at the wrong address is an
attack.
"""

import asyncio
import ipaddress
import itertools
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

import msgspec

from benchmarks.load.connection import ConnectionPool, Reply
from benchmarks.load.population import FIRST_TIMESTAMP

_AT_ONCE = 8
_PAGE = 1000
_OK = 200


class SiteError(Exception):
    """A server that can't be loaded; the message is a sentence."""


class _Item(msgspec.Struct):
    item_id: str


class _Items(msgspec.Struct):
    items: list[_Item]


class _Event(msgspec.Struct):
    timestamp: float
    event_id: str | None = None


class _History(msgspec.Struct):
    events: list[_Event]


def check_url(url: str, *, allow_remote: bool) -> None:
    """Whether a server at this URL may be loaded.

    Raises:
        SiteError: it is no URL of a server, or one of another machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SiteError(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8000.")
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)}
    except (OSError, ValueError) as error:
        raise SiteError(f"The host of {url} can't be found: {error}.") from error
    if not allow_remote and not all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        raise SiteError(f"{url} is not on this machine: to load it all the same, and only if it is yours, give --allow-remote.")


class Site:
    """The requests that a run sends."""

    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool(url)
        self.url = url

    async def recommend(self, user: str, k: int, timeout_ms: int) -> Reply:
        """Asks for one user's list."""
        body = msgspec.json.encode({"user_id": user, "k": k, "timeout_ms": timeout_ms})
        return await self._pool.ask("POST", "/v1/recommendations", body, user)

    async def append(self, user: str, events: Sequence[Mapping[str, object]]) -> bool:
        """Appends to a user's history; whether the server took it."""
        reply = await self._pool.ask("POST", _of(user, "events"), msgspec.json.encode({"events": events}), user)
        return reply.status == _OK

    async def check(self) -> None:
        """Whether the server takes requests.

        Raises:
            SiteError: it does not.
        """
        try:
            reply = await self._pool.ask("GET", "/ready")
        except OSError as error:
            raise SiteError(f"There is no server at {self.url}: {error}.") from error
        if reply.status != _OK:
            raise SiteError(f"The server at {self.url} is not ready: wait until {self.url}/ready answers 200.")

    async def items(self) -> list[str]:
        """Some items that the server recommends.

        Raises:
            SiteError: the server does not tell.
        """
        reply = await self._pool.ask("GET", f"/v1/catalog/items?limit={_PAGE}")
        if reply.status != _OK:
            raise SiteError(f"The server at {self.url} does not list its items: name a file with --histories.")
        return [item.item_id for item in msgspec.json.decode(reply.body, type=_Items).items]

    async def event_times(self, user: str) -> dict[str, float]:
        """The ids of the events in a user's stored history, and when they were."""
        reply = await self._pool.ask("GET", _of(user, "history"), user=user)
        if reply.status != _OK:
            return {}
        events = msgspec.json.decode(reply.body, type=_History).events
        return {event.event_id: event.timestamp for event in events if event.event_id is not None}

    async def seed(self, users: Sequence[str], histories: Sequence[Sequence[str]]) -> None:
        """Gives users their first histories; again changes nothing.

        Raises:
            SiteError: the server does not take them.
        """
        names = iter(zip(users, itertools.cycle(histories), strict=False))

        async def take_turns() -> None:
            for user, history in names:
                events = [
                    {"item_id": item, "timestamp": FIRST_TIMESTAMP + number, "event_id": f"first-{number}"}
                    for number, item in enumerate(history)
                ]
                if not await self.append(user, events):
                    raise SiteError(f"{self.url} does not take the histories: its catalog has other items, or its store is away.")

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(take_turns())
        except* SiteError as errors:
            raise SiteError(str(errors.exceptions[0])) from errors

    async def close(self) -> None:
        """Closes the connections."""
        await self._pool.close()


def _of(user: str, what: str) -> str:
    return f"/v1/users/{quote(user, safe='')}/{what}"
