"""Windows: which stretches of users' interactions are training samples.

Invariant: an interaction that is to be predicted comes behind all that its sample knows, and belongs to the same user.

Packing: if the prompt is nothing but the identifiers, the sequence for a user's newest item contains the sequences for all earlier items,
and under a causal mask each token attends to the same tokens as in its own sequence. One window with labels on every item but the first
is therefore the samples of all its prefixes in one forward.
"""

from dataclasses import dataclass

import numpy as np

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import BoolArray, IntArray
from drafting.trie.arrays import ranges

Positions = IntArray


@dataclass(frozen=True)
class Windows:
    """The ranges of interactions that are samples; all arrays are `[samples]`, positions in `Interactions.items` unless said otherwise.

    Attributes:
        owners: user of each, a row number.
        first: position of the oldest item of the prompt.
        last: position of the newest item to predict.
        scored: number of items up to `last` that have labels; 1 unless packed.
    """

    owners: IntArray
    first: Positions
    last: Positions
    scored: IntArray

    @property
    def predicted(self) -> Positions:
        """The positions of all items that have labels, ascending, each once."""
        return np.unique(ranges(self.last - self.scored + 1, self.scored))

    def part(self, rows: slice | BoolArray | IntArray) -> "Windows":
        """Some of the samples."""
        return Windows(self.owners[rows], self.first[rows], self.last[rows], self.scored[rows])


def newest_windows(interactions: Interactions, max_items: int, *, asked: bool = False) -> Windows:
    """The last window of each user that has any among `prefix_windows`."""
    every = prefix_windows(interactions, max_items, asked=asked)
    return every.part(np.diff(every.owners, append=-1) != 0)


def prefix_windows(interactions: Interactions, max_items: int, *, asked: bool = False) -> Windows:
    """One window per label with something to predict it from: the label, given up to `max_items` items before it.

    Args:
        asked: what was asked before an item is enough to predict a user's first from; otherwise that takes an item before it.
    """
    owners = interactions.owners
    foretold = np.arange(len(interactions)) > interactions.offsets[owners]
    if asked and interactions.details is not None:
        foretold |= interactions.details.asked
    targets = np.flatnonzero(interactions.labels & foretold)
    return windows_of(interactions, targets, owners[targets], max_items)


def next_windows(history: Interactions, later: Interactions, max_items: int) -> tuple[Interactions, Windows]:
    """The first label of `later`, given all before it, for users with a `history`; returns the joined interactions and their windows."""
    joined = history.followed_by(later)
    labels = np.flatnonzero(later.labels)
    users, first = np.unique(later.owners[labels], return_index=True)
    behind = labels[first] - later.offsets[users]
    known = history.lengths[users] > 0
    users, behind = users[known], behind[known]
    return joined, windows_of(joined, joined.offsets[users] + history.lengths[users] + behind, users, max_items)


def windows_of(interactions: Interactions, targets: Positions, owners: IntArray, max_items: int) -> Windows:
    """One window per position in `targets`, with up to `max_items` items of its user (`owners`) before it."""
    return Windows(owners, np.maximum(interactions.offsets[owners], targets - max_items), targets, np.ones_like(targets))


def packed_windows(interactions: Interactions, max_items: int, stride: int) -> Windows:
    """Windows that score every item that is not its user's first exactly once.

    The first window of a user has up to `max_items + 1` items and scores all but the first. Each further window moves on by `stride` items
    and scores these, so they are predicted from at least `max_items - stride + 1` items; `stride = 1` gives every item its full prompt, and
    one beyond `max_items` is as much.
    """
    stride = min(stride, max_items)
    rest = np.maximum(interactions.lengths - 1 - max_items, 0)
    windows = np.where(interactions.lengths >= 2, 1 + -(-rest // stride), 0)
    owners = np.repeat(np.arange(len(windows)), windows)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(windows) - windows, windows)
    start, newest = interactions.offsets[owners], interactions.offsets[owners + 1] - 1
    last = np.minimum(start + max_items + number * stride, newest)
    first = np.maximum(start, last - max_items)
    scored_before = np.where(number > 0, start + max_items + (number - 1) * stride, start)
    return Windows(owners, first, last, last - scored_before)
