"""The server under load, as its users see it.

Invariant: only a server on this machine is loaded unless the caller says otherwise, because a generator pointed at the wrong address is an
attack. A connection carries one request at a time and is closed when its request is given up, so the server sees a client hang up.
"""

import asyncio
import ipaddress
import itertools
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from benchmarks.endings import BenchmarkError
from benchmarks.load.users import FIRST_TIMESTAMP
from server.client import AsyncAtspeedClient, AtspeedError, ConnectionFailed, ProblemError
from server.client.origin import bearer

_PAGE = 1000
# How long an answer may take, the caller decides.
_TIMEOUTS = {"connect": 5.0}
# An idle connection is dropped before servers close it.
_ONE_CONNECTION = httpx.Limits(max_connections=1, keepalive_expiry=2.0)


class TargetError(BenchmarkError):
    """A server that can't be loaded; the message is a sentence."""


def check_url(url: str, *, allow_remote: bool) -> None:
    """Check that a server at this URL may be loaded.

    Raises:
        TargetError: it is no URL of a server, or one of another machine.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise TargetError(f"{url!r} is not the URL of a server: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TargetError(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8000.")
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)}
    except (OSError, ValueError) as error:
        raise TargetError(f"The host of {url} can't be found: {error}.") from error
    if not allow_remote and not all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        raise TargetError(f"{url} is not on this machine: to load it all the same, and only if it is yours, give --allow-remote.")


class Target:
    """A client of the server: what a run sends and times is sent as it is, the rest by the project's own client."""

    def __init__(self, url: str) -> None:
        self._lists = httpx.URL(f"{url}/v1/recommendations")
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._api = AsyncAtspeedClient(url, trust_env=False)
        self._key = bearer()
        self.url = url

    async def ask(
        self, method: str, url: httpx.URL | str, body: bytes = b"", user: str | None = None, content_type: str = "application/json"
    ) -> httpx.Response:
        """Send a request and wait for its answer; giving up the wait hangs up.

        Each request under way has a transport of its own. Reason: httpx's pool looks at every connection whenever a request starts or ends,
        which, with hundreds under way, would make the generator the bottleneck.

        Args:
            user: whose request it is, for a proxy that sends each user to a replica of their own.

        Raises:
            httpx.TransportError: the server can't be reached, or closed the connection.
        """
        headers = {"content-type": content_type} | self._key | ({} if user is None else {"x-user-id": user})
        request = httpx.Request(method, url, headers=headers, content=body, extensions={"timeout": _TIMEOUTS})
        reused = bool(self._idle)
        transport = self._idle.pop() if reused else httpx.AsyncHTTPTransport(self._tls, limits=_ONE_CONNECTION, trust_env=False)
        try:
            try:
                response = await transport.handle_async_request(request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A server may close an idle connection at any time; a request that met this is sent once more, as by any client. On a
                # connection of its own it has been lost by the server, which must show.
                if not reused:
                    raise
                response = await transport.handle_async_request(request)
            response.request = request
            await response.aread()
            self._idle.append(transport)
        except (httpx.TransportError, asyncio.CancelledError):
            await transport.aclose()
            raise
        return response

    async def recommend(self, user: str, k: int, timeout_ms: int) -> httpx.Response:
        """Ask for one user's list."""
        body = {"user_id": user, "k": k, "beam_width": k, "timeout_ms": timeout_ms}
        return await self.ask("POST", self._lists, msgspec.json.encode(body), user)

    async def append(self, user: str, events: Sequence[Mapping[str, object]]) -> bool:
        """Append to a user's history; whether the server took it."""
        response = await self.ask("POST", self._of(user, "events"), msgspec.json.encode({"events": events}), user)
        return response.is_success

    async def check(self) -> None:
        """Check that the server takes requests.

        Raises:
            TargetError: it does not.
        """
        try:
            await self._api.ready()
        except ConnectionFailed as error:
            raise TargetError(f"There is no server at {self.url}: {error}") from error
        except AtspeedError as error:
            raise TargetError(f"The server at {self.url} is not ready: wait until {self.url}/ready answers 200.") from error

    async def items(self) -> list[str]:
        """Some items that the server recommends.

        Raises:
            TargetError: the server does not tell.
        """
        try:
            return [item.item_id for item in (await self._api.items(limit=_PAGE)).items]
        except AtspeedError as error:
            raise TargetError(f"The server at {self.url} does not list its items: name a file with --histories.") from error

    async def event_times(self, user: str) -> dict[str, float]:
        """The ids of the events in a user's stored history, and when they were."""
        try:
            events = (await self._api.history(user)).events
        except ProblemError:
            return {}
        return {event.event_id: event.timestamp for event in events if event.event_id is not None}

    async def seed(self, users: Sequence[str], histories: Sequence[Sequence[str]]) -> None:
        """Give users their first histories; doing it again changes nothing.

        Raises:
            TargetError: the server does not take them.
        """
        first = (
            (user, [{"item_id": item, "timestamp": FIRST_TIMESTAMP + n, "event_id": f"first-{n}"} for n, item in enumerate(history)])
            for user, history in zip(users, itertools.cycle(histories), strict=False)
        )
        try:
            await self._api.append_histories(first)
        except ProblemError as error:
            sentence = "does not take the histories: its catalog has other items, or its store is away"
            raise TargetError(f"{self.url} {sentence}: {error}") from error
        except AtspeedError as error:
            raise TargetError(str(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()
        while self._idle:
            await self._idle.pop().aclose()

    def _of(self, user: str, what: str) -> str:
        return f"{self.url}/v1/users/{quote(user, safe='')}/{what}"
