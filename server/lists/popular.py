"""Popular items of one version of the catalog, and the lists that they make.

Invariant: such a list obeys what the model's lists obey: its k are identifiers, all items of one that may be returned have its rank, and
fewer than k come only where fewer are eligible, because behind the items whose popularity is known come all others, in the catalog's order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drafting.array_types import BoolArray, DoubleArray, IntArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.item_values import CapCounts
from drafting.trie.arrays import ranges
from server.histories.popularity import Popularity
from verification.result import RankedItem

# Which of some items, `[items]` catalog indices, may be returned: `[items]` bool.
Allowed = Callable[[IntArray], BoolArray]

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class PopularItems:
    """The identifiers of a catalog by popularity.

    Attributes:
        leaves: `[leaves]` int64, the identifiers whose popularity is known, as leaves of the trie, the most popular first.
        scores: `[leaves]` float64, natural logarithm of their shares of all weights, where each identifier has one more than its own.
        least_score: that of all others.
    """

    catalog: Catalog
    leaves: IntArray
    scores: DoubleArray
    least_score: float

    @classmethod
    def of(cls, popularity: Popularity, catalog: Catalog) -> "PopularItems":
        """Look up the items; those that the catalog does not have are passed over."""
        items = catalog.indices_of(popularity.item_ids)
        there = items >= 0
        leaves, first, row = np.unique(catalog.trie.leaf_of_item[items[there]], return_index=True, return_inverse=True)
        weights = np.bincount(row, np.array(popularity.weights)[there], len(leaves))
        order = np.lexsort((first, -weights))
        total = np.log(weights.sum() + catalog.identifiers)
        return cls(catalog, leaves[order].astype(np.int64), np.log1p(weights[order]) - total, -float(total))

    def list(
        self,
        k: int,
        allowed: Allowed,
        places: int = 0,
        reserved: Allowed | None = None,
        diversity: Mapping[str, int] | None = None,
    ) -> tuple[RankedItem, ...]:
        """The list of the k most popular identifiers with an item that may be returned.

        Args:
            places: so many of the k are for items that are also `reserved`, as far as there are any.
            diversity: how many items of the list may have the same value of an attribute, by attribute.
        """
        if diversity:
            return self._capped(k, allowed, places, reserved, CapCounts(self.catalog.caps(diversity)))
        leaves = self._best(k, allowed)
        if places and reserved is not None:
            kept = self._best(places, lambda items: allowed(items) & reserved(items))
            is_kept = np.isin(leaves, kept)
            stays = is_kept | (np.cumsum(~is_kept) <= k - len(kept))
            leaves = np.concatenate([leaves[stays], kept[~np.isin(kept, leaves)]])
        return self._lines([(leaf, items[allowed(items)].tolist()) for leaf in leaves.tolist() for items in [self._items_of(leaf)]])

    def _capped(self, k: int, allowed: Allowed, places: int, reserved: Allowed | None, counts: CapCounts) -> tuple[RankedItem, ...]:
        """The list with caps, walked as `verification.engine.capped` walks what a search finds; here all is found."""
        taken: dict[int, list[int]] = {}

        def find(count: int, first: Allowed | None) -> IntArray:
            """The identifiers that the next walk is over."""

            def may(items: IntArray) -> BoolArray:
                left = allowed(items) & counts.may_take(items) & ~np.isin(self.catalog.trie.leaf_of_item[items], list(taken))
                return left if first is None else left & first(items)

            return self._best(count, may)

        for until, first in ((places, reserved), (k, None)):
            while len(taken) < until:
                found = find(until - len(taken), first)
                if not len(found):
                    break
                below, rows = self.catalog.trie.items_of_leaves(found + self.catalog.trie.level_starts[-2])
                items = below.astype(np.int64)
                stays = allowed(items)
                items, rows = items[stays], rows[stays]
                more = counts.walk(items, rows, until - len(taken), None if first is None else first(items))
                taken |= {int(found[row]): those for row, those in more.items()}
        place = {leaf: number for number, leaf in enumerate(self.leaves.tolist())}
        first_items = {leaf: int(items[allowed(items)][0]) for leaf in taken for items in [self._items_of(leaf)]}
        return self._lines(sorted(taken.items(), key=lambda pair: (place.get(pair[0], len(place)), first_items[pair[0]])))

    def _items_of(self, leaf: int) -> IntArray:
        trie = self.catalog.trie
        return trie.items[trie.first_item[leaf] : trie.first_item[leaf + 1]].astype(np.int64)

    def _lines(self, listed: Sequence[tuple[int, Sequence[int]]]) -> tuple[RankedItem, ...]:
        """The items of identifiers, in the order of their ranks."""
        score_of = dict(zip(self.leaves.tolist(), self.scores.tolist(), strict=True))
        ranked = enumerate(listed, start=1)
        return tuple(RankedItem(item, score_of.get(leaf, self.least_score), rank) for rank, (leaf, items) in ranked for item in items)

    def _best(self, k: int, allowed: Allowed) -> IntArray:
        """The k most popular identifiers with an item that may be returned, or as many as there are."""
        trie = self.catalog.trie
        first = trie.first_item[self.leaves]
        counts = trie.first_item[self.leaves + 1] - first
        items = trie.items[ranges(first, counts)].astype(np.int64)
        may = np.zeros(len(self.leaves), bool)
        may[np.repeat(np.arange(len(counts)), counts)[allowed(items)]] = True
        found = self.leaves[may][:k]
        return found if len(found) == k else np.concatenate([found, self._others(k - len(found), allowed)])

    def _others(self, count: int, allowed: Allowed) -> IntArray:
        """Identifiers whose popularity is not known, in the order of their first items that may be returned."""
        found = np.empty(0, np.int64)
        for start in range(0, len(self.catalog), _ROWS_AT_ONCE):
            items = np.arange(start, min(start + _ROWS_AT_ONCE, len(self.catalog)))
            leaves = self.catalog.trie.leaf_of_item[items[allowed(items)]]
            found = np.concatenate([found, leaves[~np.isin(leaves, self.leaves)]])
            found = found[np.sort(np.unique(found, return_index=True)[1])]
            if len(found) >= count:
                break
        return found[:count]
