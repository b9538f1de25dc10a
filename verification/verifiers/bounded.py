"""Lists that may differ from plain beam search's within a bound: a search ends early if its list is proven to be close enough.

A level is rejected because some prefixes of the target's beam, the *missing*, were not drafted. A strict search computes them in another
forward. One with a tolerance first looks ahead: it goes on from the other prefixes to the leaves, as far as they are drafted, and ends
there if its list is provably close enough to the list of plain beam search. If it is not, nothing has happened: the search goes on from its
beam, which is plain beam search's at every level, as a strict one does.

Where a beam has missing prefixes, a look-ahead also goes on from the best drafted prefixes behind that beam, the *stand-ins*: without them
its list would be too short wherever prefixes have one child each, as the last ones before an item mostly do.

**The proof** uses nothing but what the target has said. Let x be a missing prefix of probability p(x), the product of its tokens'
probabilities. The probabilities of its descendants at any one depth sum to p(x) at most, whatever they are normalised over and whatever is
filtered. So at most p(x) / t of them have a probability of t or more, and no more than the trie has. Let U(t) be the sum of these numbers
over all missing prefixes above a level, those of the look-ahead among them.

1. The beam of the rejected level is plain beam search's: all its prefixes are *certain*. Its stand-ins, and what is below them, are
   *impossible*: plain beam search comes to none of them.
2. Below, plain beam search selects w continuations from those that the look-ahead knows and that are possible, or some of them, and from
   the descendants of missing ones. If y has a certain prefix above it and rank j among the possible ones, at most j - 1 known ones and
   U(p(y)) unknown ones come before it. So y is certain if j + U(p(y)) <= w. At the last level, where w = k, y is then certainly in the
   list. What the look-ahead cuts off behind w best or more is no likelier than the last of these. Plain beam search comes to those of them
   that have a certain prefix above, c in number. So it selects no more than w - c of what was cut off, and as many prefixes of the last
   one's probability, wherever they are, join the missing ones.
3. So of the k items at most those that are not certain differ, u of them (the bound `items`).
4. At most u items of the exact list are not in this one. Each lies below a missing prefix, or is known and no likelier than the last item
   listed. Those that are likelier than that one lie below missing prefixes that are, and weigh no more than these together, of which no
   more than the u likeliest can count. The others weigh no more than the last item each; there are none of them where every item listed
   has a certain prefix, for then the exact list's last item is no less likely than this one's. The exact list has all certain items, so it
   weighs at least what they do. If what may be missing weighs at most a share of that, no larger share of the exact list's probability is
   missing (the bound `mass`).

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
    """A look-ahead of one search, with its proof: from the rejected level down, level by level."""

    def __init__(self, trie: TrieArrays) -> None:
        self._trie = trie
        self._nodes: IntArray = np.empty(0, np.int64)
        self._certain: BoolArray = np.empty(0, bool)
        self._is_possible: BoolArray = np.empty(0, bool)
        # Of all missing prefixes: their probabilities, and the ranges of their descendants at the depth of the level that came last.
        self._missing_probabilities: DoubleArray = np.empty(0)
        self._missing_starts: IntArray = np.empty(0, np.int64)
        self._missing_ends: IntArray = np.empty(0, np.int64)
        self._probabilities: DoubleArray = np.empty(0)
        self._is_below_certain: BoolArray = np.empty(0, bool)

    def reject(self, nodes: IntArray, log_probs: FloatArray, drafted: BoolArray, width: int) -> None:
        """Begin with the rejected level.

        Args:
            nodes, log_probs: `[n]` int64 and float32, the beam, and behind it what may stand in for some of it, best first.
            drafted: `[n]` bool, which of them are in the tree.
            width: of the beam.
        """
        self._nodes, self._certain = nodes, np.arange(len(nodes)) < width
        self._is_possible = self._certain
        self._miss(nodes[:width], np.exp(log_probs[:width].astype(np.float64)), drafted[:width])

    def descend(self, nodes: IntArray, log_probs: FloatArray, depth: int, width: int, drafted: BoolArray | None) -> None:
        """Go on to the next level.

        Args:
            nodes: `[n]` int64, the best continuations of the drafted prefixes above, best first: the `width` best, and more if those
                may stand in for some of these.
            log_probs: `[n]` float32.
            width: how many prefixes plain beam search selects at this level.
            drafted: `[n]` bool, which of them are in the tree; None at the leaves.
        """
        self._missing_starts, self._missing_ends = self._trie.first_child[self._missing_starts], self._trie.first_child[self._missing_ends]
        probabilities = np.exp(log_probs.astype(np.float64))
        rows = find_in_array(self._trie.parents(nodes, depth), self._nodes)
        assert (rows >= 0).all()
        self._is_below_certain = self._certain[rows]
        self._is_possible = self._is_possible[rows]
        before = self._is_possible.cumsum() + self._unknown(probabilities)
        self._nodes, self._probabilities = nodes, probabilities
        self._certain = self._is_below_certain & (before <= width)
        if drafted is not None:
            self._miss(nodes, probabilities, drafted)
            if len(nodes) >= width:
                self._cut_off(depth, max(width - int(np.count_nonzero(self._is_below_certain)), 0))

    def is_within(self, tolerance: Tolerance, k: int) -> bool:
        """True if the last level, a list of k items, is within one of the tolerance's bounds."""
        if len(self._nodes) < k:
            return False
        uncertain = k - int(np.count_nonzero(self._certain))
        if not uncertain or uncertain <= tolerance.items:
            return True
        least = self._probabilities[-1]
        likely = np.sort(self._missing_probabilities[self._missing_probabilities * (1 + ROUNDING) >= least])[-uncertain:]
        lost = float(likely.sum())
        lost += 0.0 if self._is_below_certain.all() else (uncertain - len(likely)) * float(least)
        return lost * (1 + ROUNDING) <= tolerance.mass * float(self._probabilities[self._certain].sum())

    def _miss(self, nodes: IntArray, probabilities: DoubleArray, drafted: BoolArray) -> None:
        missing = nodes[~drafted]
        self._missing_probabilities = np.concatenate([self._missing_probabilities, probabilities[~drafted]])
        self._missing_starts = np.concatenate([self._missing_starts, missing])
        self._missing_ends = np.concatenate([self._missing_ends, missing + 1])

    def _cut_off(self, depth: int, most: int) -> None:
        """Note that plain beam search may select `most` prefixes of a level from those that are no likelier than all known ones."""
        start, end = self._trie.level_starts[depth : depth + 2]
        self._missing_probabilities = np.concatenate([self._missing_probabilities, np.full(most, self._probabilities[-1])])
        self._missing_starts = np.concatenate([self._missing_starts, np.full(most, start)])
        self._missing_ends = np.concatenate([self._missing_ends, np.full(most, end)])

    def _unknown(self, probabilities: DoubleArray) -> DoubleArray:
        """`[n]`, for each probability, how many descendants of missing prefixes at this level may have it or a larger one, at most."""
        most, descendants = np.empty(len(probabilities)), (self._missing_ends - self._missing_starts).astype(np.float64)
        rows = max(1, _PAIRS // max(1, len(descendants)))
        for start in range(0, len(most), rows):
            with np.errstate(divide="ignore", invalid="ignore"):
                fitting = np.floor(self._missing_probabilities / probabilities[start : start + rows, None] * (1 + ROUNDING))
            most[start : start + rows] = np.fmin(fitting, descendants).sum(1)
        return most


def shares_of(
    trie: TrieArrays, tolerance: Tolerance, nodes: IntArray, log_probs: FloatArray, depth: int, listed: FloatArray, levels: int
) -> DoubleArray:
    """`[n]`, the share of a level's part of a tolerance that each prefix takes if it is missing, by the proof and with all below known.

    All levels of a round take from one tolerance, so each may take an even part of it, but at least one item.

    Args:
        nodes, log_probs: `[n]` int64 and float32, the level's beam.
        listed: `[k]` float32, log-probabilities of the list, best first.
        levels: number of levels that share the tolerance.
    """
    probabilities, list_probabilities = np.exp(log_probs.astype(np.float64)), np.exp(listed.astype(np.float64))
    shares = np.full(len(nodes), np.inf)
    if tolerance.items:
        starts, ends = nodes, nodes + 1
        for _ in range(trie.depth - depth):
            starts, ends = trie.first_child[starts], trie.first_child[ends]
        # Items from this rank on may be others.
        least = list_probabilities[-1 - min(tolerance.items, len(listed) - 1)]
        shares = np.fmin(np.floor(probabilities / least), ends - starts) / tolerance.items * min(levels, tolerance.items)
    if tolerance.mass:
        lost = np.where(probabilities >= list_probabilities[-1], probabilities, 0.0)
        shares = np.fmin(shares, lost / (tolerance.mass * list_probabilities.sum()) * levels)
    return shares
