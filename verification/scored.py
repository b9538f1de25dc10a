"""Given candidates: the items that a request asks the target's log-probabilities of, instead of a list.

Invariant: an identifier is scored once, however many of the items share it, and a prefix once for all candidates below it that are scored
together. Nothing here needs torch: ranks are worked out where an answer is written.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.trie.arrays import TrieArrays, unshared_prefixes

# Prefixes of a level that have room at a time: as many as a wide list's, so that whoever can get such a list can get scores.
PREFIXES_PER_LEVEL = 256


@dataclass(frozen=True, eq=False)
class Scored:
    """The candidates of one request, by identifier.

    Attributes:
        paths: `[identifiers, depth]` int64, the trie nodes of each identifier, from depth 1 to the leaf; ascending by leaf.
        rows: `[items]` int64, the row in `paths` of each item, in the order of the request.
        nodes: prefixes that a step has room for: all, or so many of each level.
    """

    paths: IntArray
    rows: IntArray
    nodes: int

    @classmethod
    def of(cls, trie: TrieArrays, items: IntArray) -> "Scored":
        """Candidates by catalog index.

        Args:
            items: `[items]` int64, in any order; an item may be named more than once.

        Raises:
            ValueError: there are none, or one is not in the catalog; the message is a sentence.
        """
        if not len(items):
            raise ValueError("There are no items to score: name one at least.")
        if not 0 <= items.min() <= items.max() < len(trie.items):
            raise ValueError(f"An item to score is one that the catalog of {len(trie.items)} items does not have.")
        leaves, rows = np.unique(trie.leaf_of_item[items], return_inverse=True)
        paths = trie.paths(leaves)
        room = sum(min(PREFIXES_PER_LEVEL, trie.level_size(depth)) for depth in range(1, trie.depth))
        return cls(paths, rows.astype(np.int64), min(room, int(unshared_prefixes(paths).sum())))

    @cached_property
    def _added(self) -> IntArray:
        """`[identifiers]`, prefixes of each identifier and all before it."""
        return np.cumsum(unshared_prefixes(self.paths))

    @property
    def prefixes(self) -> int:
        """Number of distinct prefixes between the root and the candidates' leaves."""
        return int(self._added[-1])

    def end(self, first: int, nodes: int) -> int:
        """The end of the candidates from row `first` on that have so many prefixes together at most; one candidate at least."""
        # The first one shares nothing: what was scored before it is gone.
        more = nodes - (self.paths.shape[1] - 1)
        return max(first + 1, int(np.searchsorted(self._added, self._added[first] + more, side="right")))

    def ranks(self, log_probs: FloatArray) -> IntArray:
        """`[items]` int64: 1 more than the candidates' identifiers that score higher. Those that score the same share a rank.

        Args:
            log_probs: `[items]`.
        """
        best = np.empty(len(self.paths), log_probs.dtype)
        best[self.rows] = log_probs
        return 1 + np.searchsorted(np.sort(-best), -log_probs, side="left").astype(np.int64)
