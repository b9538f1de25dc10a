"""Searches for items of the served catalog, off the event loop.

Invariant: so many searches run at a time and so many wait at most, because each costs passes over all titles.
"""

import asyncio

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_search import find_items
from server.try_again import SearchesBusy

MOST_SEARCHES = 32
_TOGETHER = 2


class ItemSearch:
    """Searches of one server."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_TOGETHER)
        self._searches = 0

    async def find(self, catalog: Catalog, text: str) -> IntArray:
        """The items that match, `[items]` catalog indices, the best first.

        Raises:
            SearchesBusy: too many searches run or wait.
        """
        if self._searches >= MOST_SEARCHES:
            raise SearchesBusy(f"The server is busy with {MOST_SEARCHES} searches already: send this one again in a moment.")
        self._searches += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(find_items, catalog, text)
        finally:
            self._searches -= 1
