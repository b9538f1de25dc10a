"""`AtspeedClient`: the API from code that waits for each answer."""

import math
import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import httpx

from server.client import lists, operations, users
from server.client.errors import ConnectionFailed, TimedOut, Unavailable
from server.client.exchange import Exchange, Pause
from server.client.histories import AT_ONCE, Appended, BulkEvent, HistoryLoad, OnAppended
from server.client.methods import blocking
from server.client.operation import Answer, Operation
from server.client.origin import CONNECTIONS, POLL_SECONDS, READY_SECONDS, RETRIES, TIMEOUT_SECONDS, Origin, Retries, limits


class AtspeedClient:
    """A server's API; threads may share one. `AsyncAtspeedClient` has the same methods, to be awaited.

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
        transport: httpx.BaseTransport | None = None,
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
        self._http = httpx.Client(verify=verify, trust_env=trust_env, transport=transport, limits=limits(connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

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

    def close(self) -> None:
        """Close the connections; the client can't be used any more."""
        self._http.close()

    def run(self, operation: Operation[Answer]) -> Answer:
        """Do one operation (`server.client.operations`).

        Raises:
            AtspeedError: it has failed.
        """
        exchange = Exchange(self._origin, operation)
        while True:
            result: httpx.Response | httpx.RequestError
            try:
                result = self._http.send(exchange.request())
            except httpx.RequestError as error:
                result = error
            settled = exchange.settle(result)
            if not isinstance(settled, Pause):
                return settled
            time.sleep(settled.seconds)

    recommend = blocking(lists.recommend)
    explain = blocking(lists.explain)
    score = blocking(lists.score)
    recommend_many = blocking(lists.recommend_many)
    append_events = blocking(users.append_events)
    history = blocking(users.history)
    put_profile = blocking(users.put_profile)
    profile = blocking(users.profile)
    delete_events = blocking(users.delete_events)
    forget_profile = blocking(users.forget_profile)
    forget_history = blocking(users.forget_history)
    forget_user = blocking(users.forget_user)
    catalog = blocking(operations.catalog)
    items = blocking(operations.items)
    item = blocking(operations.item)
    items_like = blocking(operations.items_like)
    add_items = blocking(operations.add_items)
    put_filter = blocking(operations.put_filter)
    filters = blocking(operations.filters)
    filter_sample = blocking(operations.filter_sample)
    filter = blocking(operations.filter)
    forget_filter = blocking(operations.forget_filter)
    put_catalog = blocking(operations.put_catalog)
    upload_catalog = blocking(operations.upload_catalog)
    catalogs = blocking(operations.catalogs)
    difference = blocking(operations.difference)
    activate = blocking(operations.activate)
    roll_back = blocking(operations.roll_back)
    forget_catalog = blocking(operations.forget_catalog)
    control = blocking(operations.control)
    back_up_control = blocking(operations.back_up_control)
    restore_control = blocking(operations.restore_control)
    health = blocking(operations.health)
    ready = blocking(operations.ready)
    version = blocking(operations.version)
    metrics = blocking(operations.metrics)

    def wait_until_ready(self, seconds: float | None = READY_SECONDS) -> None:
        """Return when the server takes requests; wait so long (a second longer for an answer), or for ever.

        Raises:
            ConnectionFailed, Unavailable, TimedOut: it does not in that time; the last is a gateway's.
            AtspeedError: what answers there is not this server.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            try:
                self.run(replace(operations.ready(), patience=self._origin.patience(end)))
                return
            except (ConnectionFailed, Unavailable, TimedOut):
                if time.monotonic() >= end:
                    raise
            time.sleep(POLL_SECONDS)

    def append_histories(
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
            at_once: users of whom events are sent at a time, by a thread each.
            on_progress: takes what is done, after each step, from any of the threads but one at a time.
        """
        load = HistoryLoad(histories, at_once, on_progress)

        def work() -> None:
            try:
                for calls in load:
                    for call in calls:
                        load.note(self.run(call))
            finally:
                load.close()

        with ThreadPoolExecutor(at_once) as pool:
            try:
                for worker in [pool.submit(work) for _ in range(at_once)]:
                    worker.result()
            finally:
                # The pool waits for its threads, also where the wait for them was interrupted.
                load.close()
        return load.done
