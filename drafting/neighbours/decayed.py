"""Decayed histories: rows whose product with the matrix of a neighbour model is what the model scores.

Invariant: an item weighs `decay` to the power of how many came after it, as in `NeighbourModel.scores`. Needs scipy.
"""

import numpy as np
from scipy.sparse import csr_array

from drafting.array_types import IntArray
from drafting.trie.arrays import offsets_of, ranges


def decayed(items: np.ndarray, first: IntArray, last: IntArray, decay: float, size: int) -> csr_array:
    """Histories as a matrix, `[histories, size]` float64; an item that a history holds twice has two entries, which count together.

    Args:
        items: `[interactions]` numbers of items, below `size`, oldest first.
        first, last: `[histories]` where each history begins among them, and the position behind its newest item.
    """
    lengths = last - first
    places = ranges(first, lengths)
    ages = np.repeat(last, lengths) - places - 1
    return csr_array((decay ** ages.astype(np.float64), items[places], offsets_of(lengths)), shape=(len(first), size))
