"""Named filters: which items a name lets through, in every version of the catalog that is served.

Invariant: a name that is here has been evaluated for the version that is served, and the engine knows it: it is told before any request
can use the name, over the same ordered connection, and a new engine is told all names before its first request. A version for which a
filter can't be evaluated is not served.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from drafting.catalog.catalog import Catalog
from drafting.catalog.filter_expression import ExpressionError, items_where
from drafting.catalog.text_column import TextColumn
from drafting.trie.item_set import ItemSet
from server.catalogs.store import CatalogStore, ServedCatalog, known_items
from server.engine.client import EngineClient
from server.errors import FilterNotFound, FilterRefused, TooManyFilters, UnknownFilter, quoted
from server.messages import DropFilter, FilterChoice

MAX_FILTERS = 10_000


@dataclass(frozen=True)
class NamedFilter:
    """A name and its meaning.

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
        """The items of a catalog that pass; named items that the catalog does not have are passed over.

        Raises:
            FilterRefused: the expression can't be used for the catalog.
        """
        if isinstance(self.what, TextColumn):
            indices = catalog.indices_of(self.what)
            return ItemSet.of_items(indices[indices >= 0], len(catalog))
        try:
            return items_where(self.what, catalog)
        except ExpressionError as error:
            raise FilterRefused(str(error)) from error


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
        """The filter of a name.

        Raises:
            FilterNotFound: there is no filter of that name.
        """
        if name not in self._named:
            raise FilterNotFound(f"There is no filter {quoted(name)}.")
        return self._named[name]

    async def put(self, name: str, what: str | Sequence[str]) -> NamedFilter:
        """Name an expression over the items' attributes, or some items.

        Raises:
            FilterRefused, UnknownItem: the expression can't be used for the catalog, or it has no such item.
            TooManyFilters: there is no room for another one.
        """
        if not isinstance(what, str):
            known_items(self._catalogs.active.catalog, what, "the filter")
        if name not in self._named and len(self._named) >= MAX_FILTERS:
            raise TooManyFilters(f"There are {MAX_FILTERS:,} filters already: delete one first.")
        named = NamedFilter(name, what if isinstance(what, str) else TextColumn.of(what))
        async with self._catalogs.changing:
            active = self._catalogs.active
            # A catalog may have millions of distinct values: requests go on meanwhile.
            items = await asyncio.to_thread(named.items, active.catalog)
            self._catalogs.put_filter(active, name, items)
            self._named[name] = named
        return named

    async def drop(self, name: str) -> None:
        """Forget a filter; requests that run with it are not disturbed.

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
        """Evaluate all filters for a version that is to be served.

        Raises:
            FilterRefused: one of them can't be.
        """
        for named in self.all():
            try:
                served.filters[named.name] = await asyncio.to_thread(named.items, served.catalog)
            except FilterRefused as error:
                sentence = f"The filter {quoted(named.name)} can't be used with version {quoted(served.name)}: {error}"
                raise FilterRefused(sentence) from error


def check_choice(choice: FilterChoice, served: ServedCatalog) -> None:
    """Check that a request names only filters that exist.

    Raises:
        UnknownFilter: one does not exist.
    """
    if unknown := next((name for name in choice.names if name not in served.filters), None):
        raise UnknownFilter(f"There is no filter {quoted(unknown)}, which the request names.")
