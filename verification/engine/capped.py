"""Lists with caps: at most so many items of one value of an attribute, such as the brand.

A list with caps is a walk over what its search has found, best first, over as many identifiers as the beam is wide. An item is taken unless
one of its values is full: as many items with that value were taken before as the cap allows. An identifier is listed if one of its items is
taken; items of one identifier are looked at in the catalog's order. If fewer than k identifiers are listed at the end, and any may be left,
the search begins again from the same prompt, without the items of full values and without the identifiers that are listed, and the walk
continues over what it finds. The list is all that was taken, by score; a sampled list is in the order in which it was drawn.

Reserved places are filled first, by a walk over what the search for them has found. A blended list is walked in the order of its blended
ranking, as far down as the search has found identifiers: what it has not found ranks lower.

Invariant: no list breaks a cap. Each round lists at least one of the identifiers that it finds, so there are at most k rounds, and no round
follows one that has found all that there was. With a beam that keeps all prefixes the list is that of the walk over the whole catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from drafting.array_types import DoubleArray, FloatArray, IntArray
from drafting.beam.rule import Verification
from drafting.catalog.item_values import CapCounts, ItemValues
from drafting.lru import LruMap
from drafting.trie.item_set import ItemSet, intersection
from drafting.trie.item_trie import ItemTrie
from verification.engine.blend import sources_of
from verification.engine.items import eligible_items
from verification.explanation import Explanation
from verification.request import BeamRequest
from verification.result import BlendedList, RankedItem
from verification.search import BeamSearch
from verification.verifiers.verifier import VerifyResult

# Sets of items that are kept.
MOST_SETS = 16
# No more items than one in so many are left out one by one, which others' steps pay for; those of further values are by a mask.
_WIDE = 64


@dataclass(frozen=True)
class _Taken:
    """An identifier that is listed: its trie node, those of its items that are, and what ranks it."""

    leaf: int
    items: Sequence[int]
    log_prob: float
    ranking: float


class CappedList:
    """One list while it is made.

    Attributes:
        explanation: of its first round.
    """

    def __init__(self, request: BeamRequest, trie: ItemTrie, log_probs: FloatArray | None, explanation: Explanation | None) -> None:
        """`log_probs` are those of the candidates that it is blended with, `[candidates]`, -inf or NaN for one that does not join."""
        self.explanation = explanation
        self._request = request
        self._trie = trie
        self._counts = CapCounts(request.caps)
        self._taken: list[_Taken] = []
        self._is_first = True
        self._places = 0 if request.reserved is None else request.reserved.places
        self._found: list[IntArray] = []
        self._candidates, self._log_probs = np.empty(0, np.int64), np.empty(0, np.float32)
        if request.blend is not None and log_probs is not None:
            joins = np.isfinite(log_probs)
            self._candidates, self._log_probs = request.blend.paths[joins, -1], log_probs[joins]

    def take(self, parts: Sequence[VerifyResult]) -> BeamSearch | None:
        """Go on with what the request's searches have found; return the one that has to begin again, None if the list is whole."""
        general, *others = parts
        for other in others:
            # All rounds but the first are one after the other.
            general.search.absorb(other.search, beside=self._is_first)
        self._is_first = False
        if self._places:
            (reserved,) = others
            if not self._walk(reserved, self._places, self._reserved_items):
                return reserved.search
            self._places = 0
        return None if self._walk(general, self._request.k) else general.search

    @property
    def items(self) -> tuple[RankedItem, ...]:
        """The list."""
        ranked = enumerate(self._ranked, start=1)
        return tuple(RankedItem(item, taken.log_prob, rank) for rank, taken in ranked for item in taken.items)

    @property
    def blended(self) -> BlendedList | None:
        """The scores that rank the list and where its identifiers come from, if it is blended; else None."""
        if self._request.blend is None:
            return None
        leaves = np.array([taken.leaf for taken in self._ranked], np.int64)
        return BlendedList(
            tuple(taken.ranking for taken in self._ranked), sources_of(leaves, np.concatenate(self._found), self._candidates)
        )

    @property
    def full(self) -> list[tuple[ItemValues, int]]:
        """The values that no further item may have."""
        return self._counts.full()

    @property
    def listed(self) -> IntArray:
        """The items of the identifiers that are listed, taken or not."""
        return self._trie.items_of_leaves(self._leaves)[0].astype(np.int64)

    @property
    def _leaves(self) -> IntArray:
        return np.array([taken.leaf for taken in self._taken], np.int64)

    @property
    def _ranked(self) -> list[_Taken]:
        return sorted(self._taken, key=lambda taken: -taken.ranking)

    @property
    def _reserved_items(self) -> ItemSet:
        assert self._request.reserved is not None
        return self._request.reserved.items

    def _walk(self, part: VerifyResult, until: int, first: ItemSet | None = None) -> bool:
        """Take what can be taken of a search's identifiers and of the candidates, until so many are; true if no more can come.

        Args:
            first: only identifiers with an item of these; it is looked at before the others.
        """
        leaves, log_probs, ranking, certain = self._entries(part)
        is_over = _has_found_all(part.search, len(part.nodes), self._trie)
        entries = slice(None) if is_over else slice(certain)
        items, rows = eligible_items(self._trie, self._request, leaves[entries])
        taken = self._counts.walk(items, rows, until - len(self._taken), None if first is None else first.contains(items))
        self._taken += [_Taken(int(leaves[row]), found, float(log_probs[row]), float(ranking[row])) for row, found in taken.items()]
        return is_over or len(self._taken) == until

    def _entries(self, part: VerifyResult) -> tuple[IntArray, FloatArray, DoubleArray, int]:
        """What is walked over, best first: identifiers with their log-probabilities, what ranks them, and how many of them rank above all
        that the search has not found."""
        new = ~np.isin(part.nodes, self._leaves)
        self._found.append(part.nodes)
        leaves, log_probs = part.nodes[new], part.cum_log_probs[new]
        if (blend := self._request.blend) is None:
            # A sample is in the order in which it was drawn.
            is_ranked = self._request.rule.verification is Verification.STRICT
            return leaves, log_probs, log_probs.astype(np.float64) if is_ranked else np.zeros(len(leaves)), len(leaves)
        joins = ~np.isin(self._candidates, part.nodes) & ~np.isin(self._candidates, self._leaves)
        found, leaves = len(leaves), np.concatenate([leaves, self._candidates[joins]])
        log_probs = np.concatenate([log_probs, self._log_probs[joins]])
        ranking = blend.ranking(leaves, log_probs)
        order = np.argsort(-ranking, kind="stable")
        return leaves[order], log_probs[order], ranking[order], int(np.flatnonzero(order < found).max(initial=-1)) + 1


def _has_found_all(search: BeamSearch, found: int, trie: ItemTrie) -> bool:
    """True if a search has found so few identifiers that it has left out none at any level."""
    cut = [width for depth, width in enumerate(search.widths) if depth and width < trie.level_size(depth)]
    return not cut or found < min(cut)


class CapStep:
    """The lists with caps of an engine's requests, and what may still be found for them."""

    def __init__(self, trie: ItemTrie) -> None:
        self._trie = trie
        self._lists: WeakKeyDictionary[BeamSearch, CappedList] = WeakKeyDictionary()
        # Requests of one filter whose full values with many items are the same have the very same set, and share its mask.
        self._sets: LruMap[tuple[ItemSet | None, frozenset[tuple[ItemValues, int]]], ItemSet] = LruMap(MOST_SETS)

    def begun(self, parts: Sequence[VerifyResult]) -> CappedList | None:
        """The list of a request, if a round before this one has begun it."""
        return self._lists.get(parts[0].search)

    def begin(self, parts: Sequence[VerifyResult], log_probs: FloatArray | None, explanation: Explanation | None) -> CappedList:
        """Begin the list of a request at the end of its first round; it lasts as long as its first search."""
        search = parts[0].search
        self._lists[search] = found = CappedList(search.request, self._trie, log_probs, explanation)
        return found

    def remaining(self, search: BeamSearch, capped: CappedList) -> BeamRequest:
        """The request of a search that begins again: without what its list has, and what it may not have more of."""
        request = search.request
        full = capped.full
        counts = np.array([values.count(value) for values, value in full], np.int64)
        order = np.argsort(counts, kind="stable")
        few = int(np.searchsorted(np.cumsum(counts[order]), len(self._trie.items) // _WIDE, side="right"))
        narrow, wide = [full[each] for each in order[:few]], frozenset(full[each] for each in order[few:])
        excluded = np.concatenate([request.excluded_items, capped.listed, *(values.items_with(value) for values, value in narrow)])
        return replace(request, excluded_items=excluded, allowed_items=self._without(request.allowed_items, wide))

    def _without(self, allowed: ItemSet | None, wide: frozenset[tuple[ItemValues, int]]) -> ItemSet | None:
        """The allowed items that have none of some values."""
        if not wide:
            return allowed
        if (found := self._sets.get((allowed, wide))) is None:
            without = np.concatenate([values.items_with(value) for values, value in wide])
            found = ItemSet.of_items(without, len(self._trie.items)).complement
            found = self._sets.keep((allowed, wide), found if allowed is None else intersection([allowed, found]))
        return found
