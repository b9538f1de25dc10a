"""Interactions of a few users, written down as their histories."""

from collections.abc import Sequence

import numpy as np

from drafting.alignment.data.interactions import Interactions
from drafting.trie.arrays import offsets_of


def interactions(*histories: Sequence[int]) -> Interactions:
    """Users "0", "1" and so on with these items, oldest first."""
    items = np.array([item for history in histories for item in history], np.int32)
    return Interactions(tuple(map(str, range(len(histories)))), offsets_of([len(history) for history in histories]), items)
