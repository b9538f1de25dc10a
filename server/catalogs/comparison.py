"""Differences between versions of the catalog; and the items that a named filter leaves of the served version, with some of them as
samples.

Invariant: neither is computed on the event loop. Versions are compared one pair at a time, because those that are not served are read for
it: however many clients ask, memory holds at most two of them, and one thread is busy.
"""

import asyncio
from dataclasses import dataclass

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.difference import CatalogDifference, difference
from drafting.trie.item_set import ItemSet
from server.catalogs.store import CatalogStore


@dataclass(frozen=True)
class ComparedVersions:
    """Two versions and their difference."""

    old: Catalog
    new: Catalog
    difference: CatalogDifference


@dataclass(frozen=True)
class FilterEffect:
    """The items of a catalog that a filter leaves.

    Attributes:
        items, identifiers: how many of each.
        sample: catalog indices of some of the items, evenly spread over the catalog's order.
    """

    items: int
    identifiers: int
    sample: IntArray


class VersionComparison:
    """Compares the versions of one server."""

    def __init__(self, catalogs: CatalogStore) -> None:
        self._catalogs = catalogs
        self._lock = asyncio.Lock()

    async def compare(self, old: str, new: str) -> ComparedVersions:
        """The difference that serving `new` in place of `old` makes.

        Raises:
            VersionNotFound, CatalogRefused: there is no such version, or its file is unusable.
        """
        async with self._lock:
            before, after = await self._catalogs.read(old), await self._catalogs.read(new)
            return ComparedVersions(before, after, await asyncio.to_thread(difference, before, after))


def effect_of(items: ItemSet, catalog: Catalog, most: int) -> FilterEffect:
    """How many items and identifiers of a catalog a filter leaves, with a sample of at most `most` of the items."""
    rows = np.flatnonzero(items.members())
    is_left = np.zeros(catalog.identifiers, bool)
    is_left[catalog.trie.leaf_of_item[rows]] = True
    places = np.linspace(0, len(rows) - 1, min(most, len(rows)), dtype=np.int64)
    return FilterEffect(len(rows), int(np.count_nonzero(is_left)), rows[places])
