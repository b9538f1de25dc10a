"""Named filters: which items a name lets through, in every version of the catalog that is served.

Invariant: a name that is here has been evaluated for the version that is served, and the engine knows it: the engine is told before any
request can use the name, over the same ordered connection, and a new engine is told all names before its first request. It forgets a name
once no request that was let in with it is left. A version for which a filter can't be evaluated is not served. No filter changes while an
earlier version is on trial, because that version would be adopted without the change. What a name means stands in the control store, and
beside each version in memory what its sets were evaluated from.

Filters are worked out by a few threads, off the event loop, and new ones without the lock on what is served, unless another version is
activated meanwhile. Bounded are their number, what each costs (`drafting/catalog/filter_expression.py`), what is kept of them, and how many
clients may wait for theirs.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from typing import TypeVar

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.filter_expression import ExpressionError, items_where
from drafting.catalog.text_column import TextColumn
from drafting.errors import quoted
from drafting.trie.item_set import ItemSet
from server.catalogs.served import ServedCatalog, known_items
from server.catalogs.store import CatalogStore
from server.control.records import FILTER, decode_filter, encode_filter
from server.engine.client import EngineClient
from server.errors import FilterNotFound, FilterRefused, TooManyFilters, UnknownFilter
from server.messages import DropFilter
from server.submit import FilterChoice
from server.try_again import FiltersBusy

MAX_FILTERS = 10_000
# All sets and definitions together, in this process; the engine keeps the sets again.
MAX_FILTER_BYTES = 1 << 30
MAX_PUTS = 64
_THREADS = 2
_Answer = TypeVar("_Answer")


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

    @property
    def nbytes(self) -> int:
        """The size of the definition, in bytes."""
        return len(self.what) if isinstance(self.what, str) else self.what.data.nbytes + self.what.offsets.nbytes

    def items(self, catalog: Catalog, *, is_new: bool = False) -> ItemSet:
        """The items of a catalog that pass; named items that the catalog does not have are passed over.

        Args:
            is_new: True for a filter that is being put, which may be a mistake; an old one must not keep a catalog from being served.

        Raises:
            FilterRefused: the expression can't be used for the catalog.
        """
        if isinstance(self.what, TextColumn):
            indices = catalog.indices_of(self.what)
            return ItemSet.of_items(indices[indices >= 0], len(catalog))
        try:
            return items_where(self.what, catalog, checks_kinds=is_new)
        except ExpressionError as error:
            raise FilterRefused(str(error)) from error


@dataclass(frozen=True)
class _WorkedOut:
    """The items that pass a new filter, of the version that was served when that was asked for."""

    served: ServedCatalog
    items: ItemSet


class NamedFilters:
    """The named filters, as one replica knows them."""

    def __init__(self, catalogs: CatalogStore, engine: EngineClient) -> None:
        self._catalogs = catalogs
        self._follower = catalogs.follower
        self._engine = engine
        # By name, with the bytes that it was decoded from.
        self._decoded: dict[str, tuple[bytes, NamedFilter]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "filters")
        self._puts = 0

    def all(self) -> list[NamedFilter]:
        """All filters in the order of their names."""
        return [self._named(name, meaning) for name, meaning in sorted(self._catalogs.active.meanings.items())]

    def get(self, name: str) -> NamedFilter:
        """The filter of a name.

        Raises:
            FilterNotFound: there is no filter of that name.
        """
        if name not in self._catalogs.active.meanings:
            raise FilterNotFound(f"There is no filter {quoted(name)}.")
        return self._named(name, self._catalogs.active.meanings[name])

    def _named(self, name: str, meaning: bytes) -> NamedFilter:
        known = self._decoded.get(name)
        if known is None or known[0] != meaning:
            known = self._decoded[name] = meaning, NamedFilter(name, decode_filter(meaning))
        return known[1]

    async def put(self, name: str, what: str | Sequence[str]) -> tuple[NamedFilter, ItemSet]:
        """Name an expression over the items' attributes, or some items.

        Returns:
            The filter, and the items that pass of the version that was served when it was put.

        Raises:
            FilterRefused, UnknownItem: the expression can't be used for the catalog, or it has no such item.
            TooManyFilters: there is no room for another one.
            FiltersBusy: too many are being worked out.
            EngineUnavailable: an earlier version is on trial.
            ControlUnavailable: the control store does not answer; the filter may be there.
        """
        self._catalogs.check_settled()
        if self._puts >= MAX_PUTS:
            raise FiltersBusy(f"The server is working out {MAX_PUTS} filters already: send this one again in a moment.")
        self._puts += 1
        try:
            return await self._put(name, what)
        finally:
            self._puts -= 1

    async def _put(self, name: str, what: str | Sequence[str]) -> tuple[NamedFilter, ItemSet]:
        named = NamedFilter(name, what if isinstance(what, str) else TextColumn.of(what))
        meaning = await self._in_thread(lambda: encode_filter(named.what))
        found = await self._work_out(named)

        async def keep() -> None:
            nonlocal found
            if found.served is not self._catalogs.active:
                # Activated while the filter was worked out. No other can be meanwhile, so it is worked out no more than once again.
                found = await self._work_out(named)
            self._catalogs.check_settled(found.served)
            await self._keep(named, meaning, found)

        async with self._catalogs.changing:
            await self._follower.decide(keep)
        return named, found.items

    async def _work_out(self, named: NamedFilter) -> _WorkedOut:
        """The items that pass of the version that is served; an expression that another filter has is not evaluated again.

        Raises:
            FilterRefused, UnknownItem: the expression can't be used for the catalog, or it has no such item.
        """
        served = self._catalogs.active
        if named.expression is not None:
            same = next((each.name for each in self.all() if each.expression == named.expression), None)
            if same is not None and same in served.filters:
                return _WorkedOut(served, served.filters[same])

        def items() -> ItemSet:
            if isinstance(named.what, TextColumn):
                known_items(served.catalog, named.what, "the filter")
            return named.items(served.catalog, is_new=True)

        return _WorkedOut(served, await self._in_thread(items))

    async def _in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _keep(self, named: NamedFilter, meaning: bytes, found: _WorkedOut) -> None:
        """Give the name its meaning, in the control store, here and in the engine."""
        others = [each for each in self.all() if each.name != named.name]
        if len(others) >= MAX_FILTERS:
            raise TooManyFilters(f"There are {MAX_FILTERS:,} filters already: delete one first.")
        if sum(each.nbytes + found.items.bits.nbytes for each in (*others, named)) > MAX_FILTER_BYTES:
            raise TooManyFilters(f"With this one, all filters would take more than {MAX_FILTER_BYTES >> 20:,} MiB: delete one first.")
        await self._follower.write({f"{FILTER}{named.name}": meaning})
        self._decoded[named.name] = meaning, named
        if found.served is self._catalogs.active:
            # Else engines died with it during the write, and the version in its place gets the filter when this replica applies the store.
            self._catalogs.put_filter(found.served, named.name, found.items, meaning)

    async def drop(self, name: str) -> None:
        """Forget a filter; requests that run with it are not disturbed.

        Raises:
            FilterNotFound: there is no filter of that name.
            EngineUnavailable: an earlier version is on trial.
            ControlUnavailable: the control store does not answer; the filter may be forgotten.
        """

        async def judge() -> None:
            self.get(name)
            self._catalogs.check_settled()
            await self._follower.write({f"{FILTER}{name}": None})
            self._forget(name)

        async with self._catalogs.changing:
            await self._follower.decide(judge)

    def _forget(self, name: str) -> None:
        active = self._catalogs.active
        del active.filters[name], active.meanings[name]
        self._decoded.pop(name, None)
        self._engine.drop_filter(DropFilter(active.handle, name))

    async def prepare(self, served: ServedCatalog) -> None:
        """Evaluate all filters for a version that is to be served; those that it has already are not evaluated again.

        Raises:
            FilterRefused: one of them can't be.
        """
        meanings = dict(self._follower.record.filters)
        for name, items in (await self._evaluated(served, meanings)).items():
            served.filters[name], served.meanings[name] = items, meanings[name]
        for name in served.filters.keys() - meanings.keys():
            del served.filters[name], served.meanings[name]

    async def follow(self) -> None:
        """Give all names the meanings that they have in the control store, for the version that is served; `changing` is held.

        Raises:
            FilterRefused: one of them can't be evaluated.
        """
        active, meanings = self._catalogs.active, self._follower.record.filters
        found = await self._evaluated(active, meanings)
        while active is not self._catalogs.active:
            # Engines died with it meanwhile, and an earlier version is served: that waits for no lock.
            active = self._catalogs.active
            found = await self._evaluated(active, meanings)
        for name, items in found.items():
            self._catalogs.put_filter(active, name, items, meanings[name])
        for name in active.filters.keys() - meanings.keys():
            self._forget(name)

    async def _evaluated(self, served: ServedCatalog, meanings: Mapping[str, bytes]) -> dict[str, ItemSet]:
        """The items of the filters that have another meaning than the version has them with; raises as `prepare`."""
        found: dict[str, ItemSet] = {}
        evaluated: dict[str, ItemSet] = {}
        for name, meaning in sorted(meanings.items()):
            if served.meanings.get(name) == meaning:
                continue
            named = await self._in_thread(partial(self._named, name, meaning))
            expression = named.expression
            try:
                if expression is None or expression not in evaluated:
                    found[name] = await self._in_thread(partial(named.items, served.catalog))
                else:
                    found[name] = evaluated[expression]
            except FilterRefused as error:
                sentence = f"The filter {quoted(name)} can't be used with version {quoted(served.name)}: {error}"
                raise FilterRefused(sentence) from error
            if expression is not None:
                evaluated[expression] = found[name]
        return found


def check_choice(choice: FilterChoice, served: ServedCatalog) -> None:
    """Check that a request names only filters that exist.

    Raises:
        UnknownFilter: one does not exist.
    """
    if unknown := next((name for name in choice.names if name not in served.filters), None):
        raise UnknownFilter(f"There is no filter {quoted(unknown)}, which the request names.")


def passes(items: IntArray, named: FilterChoice, filters: Mapping[str, ItemSet]) -> BoolArray:
    """`[items]` bool, which of some catalog indices pass the filters, whose sets are given by name."""
    must = [filters[name].contains(items) for name in named.all]
    must += [~filters[name].contains(items) for name in named.without]
    if any_of := [filters[name].contains(items) for name in named.any]:
        must.append(reduce(np.logical_or, any_of))
    return reduce(np.logical_and, must, np.ones(len(items), bool))
