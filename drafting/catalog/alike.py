"""Items that share the beginning of an item's identifier: its neighbours in the trie."""

from dataclasses import dataclass

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog


@dataclass(frozen=True)
class Alike:
    """Items whose identifiers share so many tokens with an item's, and not one more.

    Attributes:
        depth: number of shared tokens.
        count: number of these items.
        items: catalog indices of the first of them, ascending.
    """

    depth: int
    count: int
    items: IntArray


def alike(catalog: Catalog, index: int, most: int) -> list[Alike]:
    """The items that share the whole identifier of the item at `index`, then those that share all but its last token, and so on.

    Args:
        most: how many items are told of each kind.
    """
    trie = catalog.trie
    place = int(np.flatnonzero(trie.items_of(leaf := trie.level_starts[-2] + int(trie.leaf_of_item[index])) == index)[0])
    (path,) = trie.paths(trie.leaf_of_item[index : index + 1]).tolist()
    # Items below a prefix are neighbours in `trie.items`, and around those below a longer one.
    first = int(trie.first_item[leaf - trie.level_starts[-2]]) + place
    closer, found = (first, first + 1), []
    for depth, node in reversed(list(enumerate(path, start=1))):
        (begin,), (end,) = trie.item_ranges(np.array([node]))
        others = np.concatenate([trie.items[begin : closer[0]], trie.items[closer[1] : end]]).astype(np.int64)
        told = np.sort(others if len(others) <= most else np.partition(others, most)[:most])
        found.append(Alike(depth, len(others), told))
        closer = begin, end
    return found
