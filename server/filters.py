"""Named filters: which items a name lets through, for the catalog that is served.

Invariant: a name that is here is known to every engine process that serves, also to one that is started later: the engine is told before
any request can use the name, over the same ordered connection, and a new engine is told all names before its first request.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.catalog import Catalog
from drafting.filter_expression import ExpressionError, items_where
from drafting.item_set import ItemSet
from server.engine_process import EngineClient
from server.messages import DropFilter, FilterChoice, PutFilter
from server.problems import ProblemError, quoted, unknown_item

MAX_FILTERS = 10_000


@dataclass(frozen=True)
class NamedFilter:
    """What a name stands for.

    Attributes:
        expression: over the items' attributes; None if the items were given.
        items: how many items it lets through.
    """

    name: str
    expression: str | None
    items: int


class NamedFilters:
    """The named filters of one server."""

    def __init__(self, catalog: Catalog, engine: EngineClient) -> None:
        self._catalog = catalog
        self._engine = engine
        self._named: dict[str, NamedFilter] = {}

    def all(self) -> list[NamedFilter]:
        """All filters in the order of their names."""
        return sorted(self._named.values(), key=lambda each: each.name)

    def get(self, name: str) -> NamedFilter:
        """What a name stands for.

        Raises:
            ProblemError: there is no filter of that name.
        """
        if name not in self._named:
            raise ProblemError(404, "unknown-filter", "Unknown filter", f"There is no filter {quoted(name)}.")
        return self._named[name]

    async def put_items(self, name: str, item_ids: Sequence[str]) -> NamedFilter:
        """Lets a name stand for some items.

        Raises:
            ProblemError: the catalog has no such item, or there are too many filters.
        """
        indices = self._catalog.indices_of(item_ids)
        if (missing := np.flatnonzero(indices < 0)).size:
            raise unknown_item(item_ids[missing[0]], "the filter")
        return await self._put(name, None, ItemSet.of_items(indices, len(self._catalog)))

    async def put_expression(self, name: str, expression: str) -> NamedFilter:
        """Lets a name stand for the items for which an expression holds.

        Raises:
            ProblemError: the expression can't be used for the catalog, or there are too many filters.
        """
        try:
            # A catalog may have millions of distinct values: requests go on meanwhile.
            items = await asyncio.to_thread(items_where, expression, self._catalog)
        except ExpressionError as error:
            raise ProblemError(422, "filter-expression", "Filter expression", str(error)) from error
        return await self._put(name, expression, items)

    async def drop(self, name: str) -> None:
        """Forgets a filter; requests that run with it are not disturbed.

        Raises:
            ProblemError: there is no filter of that name.
        """
        self.get(name)
        del self._named[name]
        await self._engine.forget(name, DropFilter(name))

    def check(self, choice: FilterChoice) -> None:
        """Whether a request may choose so.

        Raises:
            ProblemError: a name is unknown.
        """
        if unknown := next((name for name in choice.names if name not in self._named), None):
            raise ProblemError(422, "unknown-filter", "Unknown filter", f"There is no filter {quoted(unknown)}, which the request names.")

    async def _put(self, name: str, expression: str | None, items: ItemSet) -> NamedFilter:
        if name not in self._named and len(self._named) >= MAX_FILTERS:
            raise ProblemError(422, "too-many-filters", "Too many filters", f"There are {MAX_FILTERS:,} filters already: delete one first.")
        await self._engine.keep(name, PutFilter(name, items.bits.tobytes()))
        self._named[name] = NamedFilter(name, expression, len(items))
        return self._named[name]
