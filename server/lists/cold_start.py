"""Cold start: what users get who have done nothing from which the model could make a list.

Invariant: the popularity of items comes from the history store alone, or from a file, never from what one server happens to have seen. So
replicas give the same lists, except that each samples users of its own, and a restart changes no list.

The store is read when such a user asks and the known popularity is older than `REFRESH_SECONDS`; where reading takes long, it may grow
older. A request waits for the read only while no popularity is known. `USERS` and `EVENTS` bound the memory and the reads.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.trie.item_set import ItemSet
from server.catalogs.filters import passes
from server.catalogs.served import ServedCatalog
from server.histories.popularity import Popularity
from server.lists.fresh_places import are_fresh
from server.lists.popular import PopularItems
from server.services import Services
from server.settings import Settings
from server.submit import Submit
from server.try_again import HistoryUnavailable
from verification.result import BeamResult, Usage

USERS, EVENTS = 1000, 50
REFRESH_SECONDS = 60.0
# Where nothing was found, the first events may come at any moment.
EMPTY_SECONDS = 1.0
# A store with much else in it takes long to look through; it is read in this part of the time at the most.
READ_SHARE = 0.1
_DAY_SECONDS = 86_400


def load_popularity(settings: Settings) -> Popularity | None:
    """The popularity of a server's file; None without one.

    Raises:
        ValueError: it can't be used, or is for nothing.
    """
    if settings.cold_start_items is None:
        return None
    if settings.cold_start == "none":
        raise ValueError("--cold-start-items is a list for users that --cold-start none refuses: leave one of them out.")
    return Popularity.load(settings.cold_start_items)


class ColdStart:
    """Makes lists of popular items."""

    def __init__(self, services: Services) -> None:
        self._settings = services.settings
        self._histories = services.histories
        self._metrics = services.metrics
        self._popularity: Popularity | None = services.popularity
        self._is_fixed = services.popularity is not None
        self._read_at, self._read_seconds = -REFRESH_SECONDS, 0.0
        self._reading: asyncio.Task[None] | None = None
        # A version that nobody has any more goes with what is known of it here.
        self._items: WeakKeyDictionary[ServedCatalog, tuple[Popularity, asyncio.Task[PopularItems]]] = WeakKeyDictionary()

    async def popular(self, served: ServedCatalog, deadline: float) -> PopularItems | None:
        """The popular items of a version; None where there are none, or none is wanted.

        Args:
            deadline: monotonic seconds, until which the first read of the store is waited for.
        """
        if self._settings.cold_start == "none":
            return None
        if not self._is_fixed:
            await self._refresh(deadline)
        if (popularity := self._popularity) is None:
            return None
        items = await asyncio.shield(self._ranking(popularity, served))
        return items if len(items.leaves) else None

    def _ranking(self, popularity: Popularity, served: ServedCatalog) -> "asyncio.Task[PopularItems]":
        """The popular items of a version, looked up once for all who ask; it goes on for the others when one of them is gone."""
        known = self._items.get(served)
        if known is None or known[0] is not popularity or (known[1].done() and known[1].exception() is not None):
            lookup = asyncio.to_thread(PopularItems.of, popularity, served.catalog)
            known = self._items[served] = popularity, asyncio.create_task(lookup, name="popular items of a catalog")
        return known[1]

    async def _refresh(self, deadline: float) -> None:
        """Have the store read if what is known is old, and wait for it if nothing is known."""
        lasts = max(EMPTY_SECONDS if self._popularity is None else REFRESH_SECONDS, self._read_seconds / READ_SHARE)
        if self._reading is None and time.monotonic() - self._read_at > lasts:
            self._reading = asyncio.create_task(self._read(), name="popular items")
        if self._reading is not None and self._popularity is None:
            # Others wait for it as well, so it goes on when this request's time is over.
            await asyncio.wait([self._reading], timeout=max(0.0, deadline - time.monotonic()))

    async def _read(self) -> None:
        began = time.monotonic()
        try:
            with self._metrics.history_operation("sample"):
                histories = await self._histories.sample(USERS, EVENTS)
            since = time.time() - _DAY_SECONDS * self._settings.cold_start_days
            found = await asyncio.to_thread(Popularity.of_histories, histories, since)
            self._popularity = found if found.item_ids else None
        except HistoryUnavailable:
            # The metrics have said so.
            pass
        finally:
            self._read_at, self._reading = time.monotonic(), None
            self._read_seconds = self._read_at - began


async def popular_list(popular: PopularItems, served: ServedCatalog, submit: Submit, filters: Mapping[str, ItemSet]) -> BeamResult:
    """The list of popular items that a request may get; `submit.excluded` and its filter, reserved places and caps hold for it.

    Args:
        filters: the sets of the filters that it names.

    Raises:
        TimeoutError: the request's deadline passed.
    """
    excluded = np.array(submit.excluded, np.int64)

    def allowed(items: IntArray) -> BoolArray:
        if time.monotonic() > submit.deadline:
            raise TimeoutError("Nobody waits for the list any more, and others wait for the thread.")
        may = ~np.isin(items, excluded)
        return may if submit.filter is None else may & passes(items, submit.filter, filters)

    places, reserved = (0, None) if submit.fresh is None else (submit.fresh.places, partial(are_fresh, submit.fresh, served.catalog))
    async with asyncio.timeout(submit.deadline - submit.submitted):
        items = await asyncio.to_thread(popular.list, submit.k, allowed, places, reserved, submit.diversity)
    return BeamResult(submit.request_id, items, Usage(0))
