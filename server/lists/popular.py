"""Popular items of one version of the catalog, and the lists that they make.

Invariant: such a list obeys what the model's lists obey: its k are identifiers, all items of one that may be returned have its rank, and
fewer than k come only where fewer are eligible, because behind the items whose popularity is known come all others, in the catalog's order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drafting.array_types import BoolArray, DoubleArray, IntArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.item_values import CapCounts
from drafting.trie.arrays import find_sorted
from server.histories.popularity import Popularity
from verification.result import RankedItem

# Which of some items, `[items]` catalog indices, may be returned: `[items]` bool.
Allowed = Callable[[IntArray], BoolArray]

_ROWS_AT_ONCE = 1 << 16
# Identifiers of one portion of a walk with caps; between portions it looks which values are full.
_IDENTIFIERS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class PopularItems:
    """The identifiers of a catalog by popularity.

    Attributes:
        leaves: `[leaves]` int64, the identifiers whose popularity is known, as leaves of the trie, the most popular first.
        scores: `[leaves]` float64, natural logarithm of their shares of all weights, where each identifier has one more than its own.
        least_score: score of every other identifier.
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
            allowed: asked of a block of the catalog at a time; what it raises ends the list.
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
        below, _ = self.catalog.trie.items_of_leaves(leaves + self.catalog.trie.level_starts[-2])
        items = below.astype(np.int64)
        return self._lines(items[allowed(items)])

    def _capped(self, k: int, allowed: Allowed, places: int, reserved: Allowed | None, counts: CapCounts) -> tuple[RankedItem, ...]:
        """The list with caps, walked as `verification.engine.capped` walks what a search finds; here that is the whole ranking."""
        taken: dict[int, list[int]] = {}
        for until, first in ((places, reserved), (k, None)) if places else ((k, None),):
            for items, ranks in self._portions(allowed, first, list(taken)):
                may = counts.may_take(items)
                items, ranks = items[may], ranks[may]
                taken |= counts.walk(items, ranks, until - len(taken), None if first is None else first(items))
                if len(taken) == until:
                    break
        return self._lines(np.array([item for _, items in sorted(taken.items()) for item in items], np.int64))

    def _portions(self, allowed: Allowed, first: Allowed | None, listed: Sequence[int]) -> Iterator[tuple[IntArray, IntArray]]:
        """`_ranked` in portions of whole identifiers, without those that are `listed`; with `first`, only such as have one of these."""
        for items, ranks in self._ranked(allowed):
            stays = ~np.isin(ranks, listed)
            if first is not None:
                stays &= np.isin(ranks, ranks[first(items)])
            items, ranks = items[stays], ranks[stays]
            starts = np.flatnonzero(np.diff(ranks, prepend=-1))[::_IDENTIFIERS_AT_ONCE]
            for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(items)], strict=False):
                yield items[start:end], ranks[start:end]

    def _lines(self, items: IntArray) -> tuple[RankedItem, ...]:
        """The lines of some items, those of one identifier beside each other, in the order of their ranks."""
        leaves, (known, scores) = self.catalog.trie.leaf_of_item[items], self._by_leaf
        ranks = np.cumsum(np.diff(leaves, prepend=-1) != 0)
        return tuple(map(RankedItem, items.tolist(), scores[find_sorted(leaves, known)].tolist(), ranks.tolist()))

    @cached_property
    def _by_leaf(self) -> tuple[IntArray, DoubleArray]:
        """`leaves` in ascending order, and `scores` in the same, with that of all others as the last."""
        order = np.argsort(self.leaves)
        return self.leaves[order], np.append(self.scores[order], self.least_score)

    def _best(self, k: int, allowed: Allowed) -> IntArray:
        """The k most popular identifiers with an item that may be returned, or as many as there are."""
        found, count = [np.empty(0, np.int64)], 0
        for items, ranks in self._ranked(allowed):
            leaves = self.catalog.trie.leaf_of_item[items[np.flatnonzero(np.diff(ranks, prepend=-1))]]
            found.append(leaves.astype(np.int64))
            count += len(leaves)
            if count >= k:
                break
        return np.concatenate(found)[:k]

    def _ranked(self, allowed: Allowed) -> Iterator[tuple[IntArray, IntArray]]:
        """All items that may be returned, block by block, the most popular first.

        Returns:
            `[items]` catalog indices; `[items]`, the places of their identifiers in the ranking, ascending and the same each time.
        """
        trie, before = self.catalog.trie, 0
        for leaves in self._blocks(allowed):
            below, rows = trie.items_of_leaves(leaves + trie.level_starts[-2])
            items = below.astype(np.int64)
            may = allowed(items)
            yield items[may], rows[may] + before
            before += len(leaves)

    def _blocks(self, allowed: Allowed) -> Iterator[IntArray]:
        """Identifiers as leaves: those whose popularity is known, then others, in the order of their first items that may be returned."""
        for start in range(0, len(self.leaves), _ROWS_AT_ONCE):
            yield self.leaves[start : start + _ROWS_AT_ONCE]
        is_ranked = np.zeros(self.catalog.identifiers, bool)
        is_ranked[self.leaves] = True
        for start in range(0, len(self.catalog), _ROWS_AT_ONCE):
            items = np.arange(start, min(start + _ROWS_AT_ONCE, len(self.catalog)))
            leaves = self.catalog.trie.leaf_of_item[items[allowed(items)]]
            leaves = leaves[~is_ranked[leaves]]
            is_ranked[leaves] = True
            yield leaves[np.sort(np.unique(leaves, return_index=True)[1])].astype(np.int64)
