"""The trie of a catalog's identifiers as plain arrays: what `ItemTrie` searches, before any model has given the tokens their ids.

Invariant: nodes are numbered level by level and, within a level, in the order of their code paths. The children of a node are therefore
neighbours, and so are the items below it; offset arrays replace every pointer, and no Python object exists per node or per item. The arrays
are made by one sort and comparisons of neighbours, and can lie in a mapped file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.trie.sorting import stable_order

IntArray = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Codes = npt.NDArray[np.unsignedinteger]

ROOT = 0
_WORD_BITS = 64


@dataclass(frozen=True, eq=False)
class TrieArrays:
    """Valid continuations as offset arrays; `nodes` counts the root.

    Attributes:
        code: `[nodes]` unsigned, the code that leads to a node (0 for the root).
        first_child: `[nodes + 1]` int64; the children of node n are first_child[n] up to first_child[n + 1].
        level_starts: first node of each depth, and the number of nodes at the end; depth 0 is the root.
        max_children: for each depth below the last, the most children that one of its nodes has.
        items: `[items]` int32, catalog indices in the order of their identifiers.
        first_item: `[identifiers + 1]` int32, where the items of each leaf begin in `items`.
        leaf_of_item: `[items]` int32, the leaf that an item ends in, counted from the first leaf.
    """

    code: Codes
    first_child: IntArray
    level_starts: tuple[int, ...]
    max_children: tuple[int, ...]
    items: Rows
    first_item: Rows
    leaf_of_item: Rows

    @classmethod
    def build(cls, codes: Codes) -> "TrieArrays":
        """Build the trie of identifiers, `[items, depth]` codes of any unsigned type."""
        items, depth = codes.shape
        order = _sorted_rows(codes)
        # different[i]: the tokens so far of the sorted row i + 1 differ from those of row i.
        different = np.zeros(items - 1, bool)
        first_rows = np.zeros(1, np.int64)
        code, first_child, level_starts = [np.zeros(1, codes.dtype)], [], [0, 1]
        max_children = []
        for level in range(depth):
            column = codes[order, level]
            different |= column[1:] != column[:-1]
            node_of_row = np.zeros(items, np.int32)
            np.cumsum(different, out=node_of_row[1:])
            children = node_of_row[first_rows]
            max_children.append(int(np.diff(children, append=node_of_row[-1] + 1).max()))
            first_child.append(children.astype(np.int64) + level_starts[-1])
            first_rows = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(different) + 1])
            code.append(column[first_rows])
            level_starts.append(level_starts[-1] + len(first_rows))
        first_child.append(np.full(len(first_rows) + 1, level_starts[-1], np.int64))
        leaf_of_item = np.empty(items, np.int32)
        leaf_of_item[order] = node_of_row
        return cls(
            code=np.concatenate(code),
            first_child=np.concatenate(first_child),
            level_starts=tuple(level_starts),
            max_children=tuple(max_children),
            items=order,
            first_item=np.append(first_rows, items).astype(np.int32),
            leaf_of_item=leaf_of_item,
        )

    @property
    def depth(self) -> int:
        """Codes per identifier."""
        return len(self.max_children)

    @property
    def nodes(self) -> int:
        """Nodes of the trie, the root included."""
        return self.level_starts[-1]

    def level_size(self, depth: int) -> int:
        """Nodes at `depth`, the number of distinct prefixes of that length."""
        return self.level_starts[depth + 1] - self.level_starts[depth]

    def parents(self, nodes: IntArray, depth: int) -> IntArray:
        """The parent of each node of one depth below the root."""
        first, last = self.level_starts[depth - 1], self.level_starts[depth]
        return first + np.searchsorted(self.first_child[first:last], nodes, side="right") - 1

    def find(self, codes: Sequence[int]) -> int | None:
        """The node of a prefix; None if no identifier begins so."""
        node = ROOT
        for code in codes:
            first, last = int(self.first_child[node]), int(self.first_child[node + 1])
            node = first + int(np.searchsorted(self.code[first:last], code))
            if node == last or self.code[node] != code:
                return None
        return node

    def codes_below(self, node: int) -> Codes:
        """`[children]` unsigned, the codes that lead on from a node, ascending."""
        return self.code[self.first_child[node] : self.first_child[node + 1]]

    def paths(self, leaves: npt.NDArray[np.integer]) -> IntArray:
        """The nodes from depth 1 down to each leaf, `[leaves, depth]` int64; leaves are counted from the first leaf."""
        nodes = np.empty((len(leaves), self.depth), np.int64)
        nodes[:, -1] = leaves + self.level_starts[-2]
        for depth in range(self.depth, 1, -1):
            nodes[:, depth - 2] = self.parents(nodes[:, depth - 1], depth)
        return nodes

    def items_of(self, node: int) -> Rows:
        """Catalog indices of the items below a node, in ascending order for a leaf."""
        first, last = node, node + 1
        while first < self.level_starts[-2]:
            first, last = self.first_child[first], self.first_child[last]
        return self.items[self.first_item[first - self.level_starts[-2]] : self.first_item[last - self.level_starts[-2]]]


def children_of(first_child: IntArray, nodes: IntArray) -> tuple[IntArray, IntArray]:
    """All children of some nodes in their parents' order, and the row of each one's parent; `first_child` as of `TrieArrays`."""
    first = first_child[nodes]
    counts = first_child[nodes + 1] - first
    rows = np.repeat(np.arange(len(nodes)), counts)
    return (first - np.cumsum(counts) + counts)[rows] + np.arange(len(rows)), rows


def _sorted_rows(codes: Codes) -> Rows:
    """The rows in the order of their codes, equal rows as they stand: `[items]` int32."""
    words: list[npt.NDArray[np.uint64]] = []
    free = 0
    for level in range(codes.shape[1]):
        column = codes[:, level]
        lowest = column.min()
        bits = max(1, int(column.max() - lowest).bit_length())
        if bits > free:
            words.append(np.zeros(len(codes), np.uint64))
            free = _WORD_BITS
        words[-1] <<= np.uint64(bits)
        words[-1] |= column - lowest
        free -= bits
    order = stable_order(words.pop())
    for word in reversed(words):
        order = order[stable_order(word[order])]
    return order
