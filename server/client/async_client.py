"""`AsyncAtspeedClient`: the API from asyncio."""

import asyncio
import math
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import httpx

from server.client import lists, operations, users
from server.client.errors import ConnectionFailed, TimedOut, Unavailable
from server.client.exchange import Exchange, Pause
from server.client.histories import AT_ONCE, Appended, BulkEvent, HistoryLoad, OnAppended
from server.client.methods import awaiting
from server.client.operation import Answer, Operation
from server.client.origin import CONNECTIONS, POLL_SECONDS, READY_SECONDS, RETRIES, TIMEOUT_SECONDS, Origin, Retries, limits


class AsyncAtspeedClient:
    """A server's API; tasks may share one. `AtspeedClient` has the same methods, which return when they are done.

    All methods raise an `AtspeedError` where a call fails (`server.client.errors`).
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retries: Retries = RETRIES,
        connections: int = CONNECTIONS,
        verify: ssl.SSLContext | bool = True,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: URL of the server or its gateway, such as `http://127.0.0.1:8000`.
            key: of the server or its gateway, which gets it as `Authorization: Bearer …`; by default that of the environment variable
                `ATSPEED_KEY`, or of the file that `ATSPEED_KEY_FILE` names.
            headers: sent with every request; an `Authorization` among them takes the place of a key of the environment.
            deadline: seconds for a call of `recommend`, `recommend_many`, `explain` or `score` that names none; None for the server's own
                timeout.
            timeout: seconds that an answer may take where there is no deadline.
            connections: most connections at a time; calls beyond it wait for one.
            verify: how certificates are checked.
            trust_env: whether proxies of the environment are used (`HTTPS_PROXY` and the like).
            transport: sends the requests in place of a pool of connections.

        Raises:
            ValueError: `url` is not that of a server, or the key's file can't be read.
        """
        self._origin = Origin(url, key, deadline, timeout, retries, headers)
        self._http = httpx.AsyncClient(verify=verify, trust_env=trust_env, transport=transport, limits=limits(connections))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return self._origin.has_key

    def use_key(self, key: str | None) -> None:
        """Send this key from now on; None for that of the environment, empty for none."""
        self._origin.use_key(key)

    @property
    def url(self) -> str:
        """The server's URL, without a slash at its end."""
        return self._origin.url

    async def close(self) -> None:
        """Close the connections; the client can't be used any more."""
        await self._http.aclose()

    async def run(self, operation: Operation[Answer]) -> Answer:
        """Do one operation (`server.client.operations`).

        Raises:
            AtspeedError: it has failed.
        """
        exchange = Exchange(self._origin, operation)
        while True:
            result: httpx.Response | httpx.RequestError
            try:
                result = await self._http.send(exchange.request())
            except httpx.RequestError as error:
                result = error
            settled = exchange.settle(result)
            if not isinstance(settled, Pause):
                return settled
            await asyncio.sleep(settled.seconds)

    recommend = awaiting(lists.recommend)
    explain = awaiting(lists.explain)
    score = awaiting(lists.score)
    recommend_many = awaiting(lists.recommend_many)
    append_events = awaiting(users.append_events)
    history = awaiting(users.history)
    put_profile = awaiting(users.put_profile)
    profile = awaiting(users.profile)
    delete_events = awaiting(users.delete_events)
    forget_profile = awaiting(users.forget_profile)
    forget_history = awaiting(users.forget_history)
    forget_user = awaiting(users.forget_user)
    catalog = awaiting(operations.catalog)
    items = awaiting(operations.items)
    item = awaiting(operations.item)
    items_like = awaiting(operations.items_like)
    add_items = awaiting(operations.add_items)
    put_filter = awaiting(operations.put_filter)
    filters = awaiting(operations.filters)
    filter_sample = awaiting(operations.filter_sample)
    filter = awaiting(operations.filter)
    forget_filter = awaiting(operations.forget_filter)
    put_catalog = awaiting(operations.put_catalog)
    upload_catalog = awaiting(operations.upload_catalog)
    catalogs = awaiting(operations.catalogs)
    difference = awaiting(operations.difference)
    activate = awaiting(operations.activate)
    roll_back = awaiting(operations.roll_back)
    forget_catalog = awaiting(operations.forget_catalog)
    control = awaiting(operations.control)
    back_up_control = awaiting(operations.back_up_control)
    restore_control = awaiting(operations.restore_control)
    health = awaiting(operations.health)
    ready = awaiting(operations.ready)
    version = awaiting(operations.version)
    metrics = awaiting(operations.metrics)

    async def wait_until_ready(self, seconds: float | None = READY_SECONDS) -> None:
        """Return when the server takes requests; wait so long (a second longer for an answer), or for ever.

        Raises:
            ConnectionFailed, Unavailable, TimedOut: it does not in that time; the last is a gateway's.
            AtspeedError: what answers there is not this server.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            try:
                await self.run(replace(operations.ready(), patience=self._origin.patience(end)))
                return
            except (ConnectionFailed, Unavailable, TimedOut):
                if time.monotonic() >= end:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def append_histories(
        self,
        histories: Iterable[tuple[str, Iterable[BulkEvent]]],
        *,
        at_once: int = AT_ONCE,
        on_progress: OnAppended | None = None,
    ) -> Appended:
        """Append the histories of many users, from an iterator of user ids and events (or ids of items), each oldest first.

        Events get an id where they have none, so a load whose events have timestamps can be repeated, as a whole, and goes on after one
        that was interrupted. At the first failure no more users are begun.

        Args:
            at_once: users of whom events are sent at a time, by a task each.
            on_progress: takes what is done, after each step.
        """
        load = HistoryLoad(histories, at_once, on_progress)

        async def work() -> None:
            try:
                for calls in load:
                    for call in calls:
                        load.note(await self.run(call))
            finally:
                load.close()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return load.done
