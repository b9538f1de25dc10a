"""Named filters: which items a name lets through, in every version of the catalog that is served.

Invariant: a name that is here has been worked out for the version that is served, and the engine knows it: it is told before any request
can use the name, over the same ordered connection, and a new engine is told all names before its first request. A version for which a
filter can't be worked out is not served.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.catalog.catalog import Catalog
from drafting.catalog.filter_expression import ExpressionError, items_where
from drafting.catalog.text_column import TextColumn
from drafting.trie.item_set import ItemSet
from server.catalogs.store import CatalogStore, ServedCatalog
from server.engine.client import EngineClient
from server.errors import FilterNotFound, FilterRefused, TooManyFilters, UnknownFilter, UnknownItem, quoted
from server.messages import DropFilter, FilterChoice

MAX_FILTERS = 10_000


@dataclass(frozen=True)
class NamedFilter:
    """What a name stands for.

    Attributes:
        what: an expression over the items' attributes, or the names of items.
    """

    name: str
    what: str | TextColumn

    @property
    def expression(self) -> str | None:
        """The expression, if it is one."""
        return self.what if isinstance(self.what, str) else None

    def items(self, catalog: Catalog) -> ItemSet:
        """What it lets through of a catalog; named items that a catalog does not have are passed over.

        Raises:
            ExpressionError: the expression can't be used for the catalog.
        """
        if isinstance(self.what, str):
            return items_where(self.what, catalog)
        indices = catalog.indices_of(self.what)
        return ItemSet.of_items(indices[indices >= 0], len(catalog))


class NamedFilters:
    """The named filters of one server."""

    def __init__(self, catalogs: CatalogStore, engine: EngineClient) -> None:
        self._catalogs = catalogs
        self._engine = engine
        self._named: dict[str, NamedFilter] = {}

    def all(self) -> list[NamedFilter]:
        """All filters in the order of their names."""
        return sorted(self._named.values(), key=lambda each: each.name)

    def get(self, name: str) -> NamedFilter:
        """What a name stands for.

        Raises:
            FilterNotFound: there is no filter of that name.
        """
        if name not in self._named:
            raise FilterNotFound(name)
        return self._named[name]

    async def put_items(self, name: str, item_ids: Sequence[str]) -> NamedFilter:
        """Lets a name stand for some items.

        Raises:
            UnknownItem, TooManyFilters: the catalog has no such item, or there are too many filters.
        """
        missing = np.flatnonzero(self._catalogs.active.catalog.indices_of(item_ids) < 0)
        if missing.size:
            raise UnknownItem(item_ids[missing[0]], "the filter")
        return await self._put(NamedFilter(name, TextColumn.of(item_ids)))

    async def put_expression(self, name: str, expression: str) -> NamedFilter:
        """Lets a name stand for the items for which an expression holds.

        Raises:
            FilterRefused, TooManyFilters: the expression can't be used for the catalog, or there are too many filters.
        """
        try:
            return await self._put(NamedFilter(name, expression))
        except ExpressionError as error:
            raise FilterRefused(str(error)) from error

    async def drop(self, name: str) -> None:
        """Forgets a filter; requests that run with it are not disturbed.

        Raises:
            FilterNotFound: there is no filter of that name.
        """
        async with self._catalogs.changing:
            self.get(name)
            del self._named[name]
            active = self._catalogs.active
            del active.filters[name]
            self._engine.drop_filter(DropFilter(active.handle, name))

    async def prepare(self, served: ServedCatalog) -> None:
        """Works all filters out for a version that is to be served.

        Raises:
            FilterRefused: one of them can't be.
        """
        for named in self.all():
            try:
                served.filters[named.name] = await asyncio.to_thread(named.items, served.catalog)
            except ExpressionError as error:
                detail = f"The filter {quoted(named.name)} can't be used with version {quoted(served.name)}: {error}"
                raise FilterRefused(detail) from error

    async def _put(self, named: NamedFilter) -> NamedFilter:
        if named.name not in self._named and len(self._named) >= MAX_FILTERS:
            raise TooManyFilters(f"There are {MAX_FILTERS:,} filters already: delete one first.")
        async with self._catalogs.changing:
            active = self._catalogs.active
            # A catalog may have millions of distinct values: requests go on meanwhile.
            items = await asyncio.to_thread(named.items, active.catalog)
            self._catalogs.put_filter(active, named.name, items)
            self._named[named.name] = named
        return named


def check_choice(choice: FilterChoice, served: ServedCatalog) -> None:
    """Whether a request may choose so.

    Raises:
        UnknownFilter: a name is unknown.
    """
    if unknown := next((name for name in choice.names if name not in served.filters), None):
        raise UnknownFilter(unknown)
