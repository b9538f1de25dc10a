"""Proof that a trie in CSR form is the trie of some identifiers, for arrays that were read from a file.

Invariant: what passes is exactly what `TrieArrays.from_codes` makes of the identifiers, so nothing that indexes something is out of bounds,
and every item is found below its own identifier. It is proven without sorting, in time proportional to items and nodes.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.trie.arrays import Codes, TrieArrays

Array = npt.NDArray[np.integer]


def check_trie(trie: TrieArrays, codes: Codes) -> None:
    """Check that a trie is that of `codes` `[items, depth]`.

    Raises:
        ValueError: it is not; the message says which part is wrong.
    """
    _check_shapes(trie, codes)
    inner = trie.level_starts[-2]
    _require(trie.first_child[0] == 1 and rises(trie.first_child[: inner + 1]), "the offsets of children")
    starts = trie.first_child[list(trie.level_starts[:-1])].tolist()
    _require(starts == list(trie.level_starts[1:]), "the levels")
    _require(bool((trie.first_child[inner:] == trie.nodes).all()), "the offsets of children")
    _require(
        all(int(np.diff(_children(trie, depth)).max()) == most for depth, most in enumerate(trie.max_children)), "the branching factors"
    )
    ascending = np.empty(trie.nodes, bool)
    ascending[1:] = trie.code[1:] > trie.code[:-1]
    ascending[trie.first_child[:inner]] = True
    _require(bool(ascending[1:].all()), "the order of children")
    _check_items(trie, codes)


def _check_shapes(trie: TrieArrays, codes: Codes) -> None:
    items, depth = codes.shape
    _require(trie.depth == depth and len(trie.level_starts) == depth + 2 and trie.level_starts[:2] == (0, 1), "the levels")
    _require(all(first < last for first, last in pairwise(trie.level_starts)), "the levels")
    shapes = (
        (trie.code, trie.nodes),
        (trie.first_child, trie.nodes + 1),
        (trie.items, items),
        (trie.first_item, trie.level_size(depth) + 1),
        (trie.leaf_of_item, items),
    )
    _require(all(array.shape == (rows,) for array, rows in shapes), "the sizes")


def _check_items(trie: TrieArrays, codes: Codes) -> None:
    """Check that every item lies once below the leaf that its codes lead to, and that items of one leaf are in ascending order."""
    _require(trie.first_item[0] == 0 and trie.first_item[-1] == len(codes) and rises(trie.first_item), "the offsets of items")
    counts = np.diff(trie.first_item)
    _require(within(trie.items, len(codes)) and within(trie.leaf_of_item, len(counts)), "the items")
    leaf_of_row = np.repeat(np.arange(len(counts)), counts)
    # Each item has one leaf, and those of one leaf differ, so as many items as there are rows are all of them.
    later = (trie.items[1:] > trie.items[:-1]) | (leaf_of_row[1:] > leaf_of_row[:-1])
    _require(bool(later.all()) and np.array_equal(trie.leaf_of_item[trie.items], leaf_of_row), "the items")
    nodes: IntArray = leaf_of_row + trie.level_starts[-2]
    ordered = codes[trie.items]
    for depth in range(trie.depth, 0, -1):
        _require(np.array_equal(trie.code[nodes], ordered[:, depth - 1]), "the identifiers")
        parents = np.repeat(np.arange(trie.level_size(depth - 1)), np.diff(_children(trie, depth - 1)))
        nodes = parents[nodes - trie.level_starts[depth]] + trie.level_starts[depth - 1]


def rises(numbers: Array) -> bool:
    """True if each of `numbers` is larger than the one before."""
    return bool((numbers[1:] > numbers[:-1]).all())


def within(numbers: Array, end: int, first: int = 0) -> bool:
    """True if all of `numbers` are at least `first` and less than `end`."""
    return not numbers.size or (int(numbers.min()) >= first and int(numbers.max()) < end)


def _children(trie: TrieArrays, depth: int) -> IntArray:
    return trie.first_child[trie.level_starts[depth] : trie.level_starts[depth + 1] + 1]


def _require(holds: bool, part: str) -> None:
    if not holds:
        raise ValueError(f"{part} of its trie")
