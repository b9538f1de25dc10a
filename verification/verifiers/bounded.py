"""Lists that may differ from plain beam search's within a bound: a search ends early if its list is proven to be close enough.

A level is rejected because some prefixes of the target's beam, the *missing*, were not drafted. A strict search computes them in another
forward. One with a tolerance first looks ahead: it goes on from the other prefixes to the leaves, as far as they are drafted, and ends
there if its list is provably close enough to the list of plain beam search. If it is not, nothing has happened: the search goes on from its
beam, which is plain beam search's at every level, as a strict one does.

**The proof** uses nothing but what the target has said. Let x be a missing prefix of probability p(x), the product of its tokens'
probabilities. The probabilities of its descendants at any one depth sum to p(x) at most, whatever they are normalised over and whatever is
filtered. So at most p(x) / t of them have a probability of t or more, and no more than the trie has. Let U(t) be the sum of these numbers
over all missing prefixes above a level, those of the look-ahead among them.

1. The beam of the rejected level is plain beam search's: all its prefixes are *certain*.
2. Below, plain beam search selects w continuations from those that the look-ahead knows, or some of them, and from the descendants of
   missing ones. If y has a certain prefix above it and rank j among what the look-ahead knows, at most j - 1 known ones and U(p(y)) unknown
   ones come before it. So y is certain if j + U(p(y)) <= w. At the last level, where w = k, y is then certainly in the list.
   What the look-ahead cuts off behind its own w best is no likelier than the last of these. Plain beam search may select it only where it
   has not come to some of them, which are among those without a certain prefix above; so it selects no more than there are of these, and as
   many prefixes of that probability, wherever they are, join the missing ones.
3. So of the k items at most those that are not certain differ (the bound `items`).
4. What the exact list has and this one has not lies below missing prefixes, or is known. The former weighs no more than these prefixes;
   where every item listed has a certain prefix, the exact list's last item is no less likely than this one's, so of missing prefixes those
   that are less likely weigh nothing. Known items are left out only in favour of items without a certain prefix: each is no likelier than
   the last item listed, and there are no more of them than items that are not certain. The exact list has all certain items, so it weighs
   at least what they do. If what may be missing weighs at most a share of that, no larger share of the exact list's probability is missing
   (the bound `mass`).

Invariant: the bounds hold for every draft, up to rounding, for which ratios are taken a little larger than they are.
"""

import numpy as np

from drafting.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from drafting.beam.rule import Tolerance
from drafting.trie.arrays import TrieArrays, find_in_array

# Beyond what float32 can be off by.
ROUNDING = 1e-4
# Pairs of a prefix and a missing one that are compared at a time, which fit in a processor's cache.
_PAIRS = 1 << 16


class LookAhead:
    """A proof that goes down level by level; all levels are of one search."""

    def __init__(self, trie: TrieArrays) -> None:
        self._trie = trie
        self._nodes: IntArray = np.empty(0, np.int64)
        self._certain: BoolArray = np.empty(0, bool)
        # Of all missing prefixes: probability, and the range of their descendants at the depth of the last level.
        self._missing: DoubleArray = np.empty(0)
        self._first: IntArray = np.empty(0, np.int64)
        self._last: IntArray = np.empty(0, np.int64)
        self._probabilities: DoubleArray = np.empty(0)
        self._is_below_certain: BoolArray = np.empty(0, bool)

    def reject(self, nodes: IntArray, log_probs: FloatArray, drafted: BoolArray) -> None:
        """Begin with the rejected level: its beam, `[n]`, and which of it was drafted."""
        self._nodes, self._certain = nodes, np.ones(len(nodes), bool)
        self._miss(nodes, np.exp(log_probs.astype(np.float64)), drafted)

    def descend(self, nodes: IntArray, log_probs: FloatArray, depth: int, width: int, drafted: BoolArray | None) -> None:
        """Go on to the next level.

        Args:
            nodes: `[n]` int64, the best continuations of the drafted prefixes above, best first.
            log_probs: `[n]` float32.
            width: how many plain beam search selects.
            drafted: `[n]` bool, which of them are in the tree; None at the leaves.
        """
        self._first, self._last = self._trie.first_child[self._first], self._trie.first_child[self._last]
        probabilities = np.exp(log_probs.astype(np.float64))
        rows = find_in_array(self._trie.parents(nodes, depth), self._nodes)
        assert (rows >= 0).all()
        self._is_below_certain = self._certain[rows]
        before = np.arange(1, len(nodes) + 1) + self._unknown(probabilities)
        self._nodes, self._probabilities = nodes, probabilities
        self._certain = self._is_below_certain & (before <= width)
        if drafted is not None:
            self._miss(nodes, probabilities, drafted)
            if len(nodes) == width:
                self._cut_off(depth, int(np.count_nonzero(~self._is_below_certain)))

    def is_within(self, tolerance: Tolerance, k: int) -> bool:
        """True if the list of the last level, of k items, is within a bound."""
        if len(self._nodes) < k:
            return False
        uncertain = k - int(np.count_nonzero(self._certain))
        if not uncertain or uncertain <= tolerance.items:
            return True
        all_below_certain = bool(self._is_below_certain.all())
        least = self._probabilities[-1]
        lost = float(self._missing[self._missing * (1 + ROUNDING) >= (least if all_below_certain else 0.0)].sum())
        lost += 0.0 if all_below_certain else uncertain * float(least)
        return lost * (1 + ROUNDING) <= tolerance.mass * float(self._probabilities[self._certain].sum())

    def _miss(self, nodes: IntArray, probabilities: DoubleArray, drafted: BoolArray) -> None:
        missing = nodes[~drafted]
        self._missing = np.concatenate([self._missing, probabilities[~drafted]])
        self._first = np.concatenate([self._first, missing])
        self._last = np.concatenate([self._last, missing + 1])

    def _cut_off(self, depth: int, most: int) -> None:
        """Of what is less likely than a whole level, `most` may be selected by plain beam search."""
        first, last = self._trie.level_starts[depth : depth + 2]
        self._missing = np.concatenate([self._missing, np.full(most, self._probabilities[-1])])
        self._first = np.concatenate([self._first, np.full(most, first)])
        self._last = np.concatenate([self._last, np.full(most, last)])

    def _unknown(self, probabilities: DoubleArray) -> DoubleArray:
        """`[n]`, the most descendants of missing prefixes at this level that are as likely as each of some probabilities."""
        most, below = np.empty(len(probabilities)), (self._last - self._first).astype(np.float64)
        rows = max(1, _PAIRS // max(1, len(below)))
        for start in range(0, len(most), rows):
            with np.errstate(divide="ignore", invalid="ignore"):
                fitting = np.floor(self._missing / probabilities[start : start + rows, None] * (1 + ROUNDING))
            most[start : start + rows] = np.fmin(fitting, below).sum(1)
        return most


def shares_of(
    trie: TrieArrays, tolerance: Tolerance, nodes: IntArray, log_probs: FloatArray, depth: int, listed: FloatArray
) -> DoubleArray:
    """`[n]`, the share of a tolerance that each prefix of a level takes, by the proof, if it is missing; as if all below was known.

    Args:
        nodes, log_probs: `[n]` int64 and float32, the level's beam.
        listed: `[k]` float32, log-probabilities of the list, best first.
    """
    probabilities, last_listed = np.exp(log_probs.astype(np.float64)), np.exp(listed.astype(np.float64))
    shares = np.full(len(nodes), np.inf)
    if tolerance.items:
        first, last = nodes, nodes + 1
        for _ in range(trie.depth - depth):
            first, last = trie.first_child[first], trie.first_child[last]
        # Items from this rank on may be others.
        least = last_listed[-1 - min(tolerance.items, len(listed) - 1)]
        shares = np.fmin(np.floor(probabilities / least), last - first) / tolerance.items
    if tolerance.mass:
        lost = np.where(probabilities >= last_listed[-1], probabilities, 0.0)
        shares = np.fmin(shares, lost / (tolerance.mass * last_listed.sum()))
    return shares
