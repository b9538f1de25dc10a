"""Searches for items of the served catalog, by text or by what they share with one, off the event loop.

Invariant: so many searches run at a time and so many wait at most, because each costs passes over all titles, or over all items that have a
token of one.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from drafting.array_types import IntArray
from drafting.catalog.alike import Alike, alike
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_search import find_items
from server.try_again import SearchesBusy

MOST_SEARCHES = 32
_TOGETHER = 2
_Asked = ParamSpec("_Asked")
_Found = TypeVar("_Found")


class ItemSearch:
    """Searches of one server; all raise SearchesBusy where too many run or wait."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_TOGETHER)
        self._searches = 0

    async def find(self, catalog: Catalog, text: str) -> IntArray:
        """The items that match, `[items]` catalog indices, the best first."""
        return await self._in_turn(find_items, catalog, text)

    async def alike(self, catalog: Catalog, index: int, most: int) -> list[Alike]:
        """The items that share the beginning of an item's identifier; `most` of each kind are told."""
        return await self._in_turn(alike, catalog, index, most)

    async def _in_turn(self, search: Callable[_Asked, _Found], *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Found:
        if self._searches >= MOST_SEARCHES:
            raise SearchesBusy(f"The server is busy with {MOST_SEARCHES} searches already: send this one again in a moment.")
        self._searches += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(search, *args, **kwargs)
        finally:
            self._searches -= 1
