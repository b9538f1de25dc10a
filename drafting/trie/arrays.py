"""The trie of a catalog's identifiers in CSR form (offset arrays, as in a compressed sparse row matrix), by code.

Invariant: nodes are numbered level by level and, within a level, in the order of their code paths. The children of a node are therefore
consecutive numbers, and so are the items below it: `first_child` is the `indptr` of the CSR form. There is no Python object per node or
per item, and the arrays may lie in a memory-mapped file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.array_types import Int32Array, IntArray

Codes = npt.NDArray[np.unsignedinteger]

ROOT = 0
_WORD_BITS = 64
# PyTorch sorts millions of keys several times faster, but importing it costs a second and much memory.
RADIX_FROM = 1 << 21
_SIGN = np.uint64(1 << 63)


def stable_order(keys: npt.NDArray[np.uint64]) -> Int32Array:
    """Row numbers in ascending order of `keys` `[rows]`, `[rows]` int32, at most 2^31; equal keys keep their order."""
    if len(keys) < RADIX_FROM:
        return np.argsort(keys, kind="stable").astype(np.int32)
    import torch

    # PyTorch does not sort unsigned numbers; with the highest bit flipped, signed numbers have the same order.
    order: Int32Array = torch.from_numpy((keys ^ _SIGN).view(np.int64)).sort(stable=True).indices.int().numpy()
    return order


@dataclass(frozen=True, eq=False)
class TrieArrays:
    """The trie as offset arrays; the root is node 0 and counts as a node.

    Attributes:
        code: `[nodes]` unsigned, the code on the edge to each node (0 for the root).
        first_child: `[nodes + 1]` int64; the children of node n are first_child[n] up to first_child[n + 1].
        level_starts: `[depth + 2]`, the first node of each depth, and at the end the number of nodes; depth 0 is the root.
        max_children: `[depth]`, for each depth above the leaves, the largest number of children (branching factor) of one node.
        items: `[items]` int32, catalog indices in the order of their identifiers.
        first_item: `[leaves + 1]` int32; the items of leaf l are items[first_item[l]] up to items[first_item[l + 1]].
        leaf_of_item: `[items]` int32, the leaf of each item, counted from the first leaf.
    """

    code: Codes
    first_child: IntArray
    level_starts: tuple[int, ...]
    max_children: tuple[int, ...]
    items: Int32Array
    first_item: Int32Array
    leaf_of_item: Int32Array

    @classmethod
    def from_codes(cls, codes: Codes) -> "TrieArrays":
        """Build the trie of identifiers, `[items, depth]` codes of any unsigned type, by one sort."""
        items, depth = codes.shape
        order = _sorted_rows(codes)
        # different[i]: the codes so far of the sorted row i + 1 differ from those of row i.
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
        """Number of nodes, the root included."""
        return self.level_starts[-1]

    def level_size(self, depth: int) -> int:
        """Number of nodes at `depth`: distinct prefixes of that length."""
        return self.level_starts[depth + 1] - self.level_starts[depth]

    def parents(self, nodes: IntArray, depth: int) -> IntArray:
        """The parent of each of `nodes`, all of one depth below the root."""
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
        """The codes on the edges to the children of a node, `[children]` unsigned, ascending."""
        return self.code[self.first_child[node] : self.first_child[node + 1]]

    def paths(self, leaves: npt.NDArray[np.integer]) -> IntArray:
        """The nodes on the path from depth 1 to each leaf, `[leaves, depth]` int64; leaves are counted from the first leaf."""
        nodes = np.empty((len(leaves), self.depth), np.int64)
        nodes[:, -1] = leaves + self.level_starts[-2]
        for depth in range(self.depth, 1, -1):
            nodes[:, depth - 2] = self.parents(nodes[:, depth - 1], depth)
        return nodes

    def items_of_leaves(self, leaves: IntArray) -> tuple[Int32Array, IntArray]:
        """The items of each of `leaves`, one behind the other, and for each of them the index of its leaf."""
        rows = leaves - self.level_starts[-2]
        starts = self.first_item[rows].astype(np.int64)
        counts = self.first_item[rows + 1] - starts
        return self.items[ranges(starts, counts)], np.repeat(np.arange(len(leaves)), counts)

    def items_of(self, node: int) -> Int32Array:
        """Catalog indices of the items below a node, in ascending order for a leaf."""
        (first,), (end,) = self.item_ranges(np.array([node]))
        return self.items[first:end]

    def item_ranges(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Where the items below each of `nodes`, all of one depth, begin and end in `items`; `[nodes]` int64 each."""
        first, end, leaves = nodes, nodes + 1, self.level_starts[-2]
        while len(nodes) and first[0] < leaves:
            first, end = self.first_child[first], self.first_child[end]
        return self.first_item[first - leaves].astype(np.int64), self.first_item[end - leaves].astype(np.int64)


def children_of(first_child: IntArray, nodes: IntArray) -> tuple[IntArray, IntArray]:
    """All children of `nodes`, parent by parent, and for each child the row of its parent in `nodes`; `first_child` as in `TrieArrays`."""
    first = first_child[nodes]
    counts = first_child[nodes + 1] - first
    return ranges(first, counts), np.repeat(np.arange(len(nodes)), counts)


def _sorted_rows(codes: Codes) -> Int32Array:
    """Row numbers in the order of the rows' codes, `[items]` int32; equal rows keep their order."""
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


def offsets_of(counts: npt.ArrayLike) -> IntArray:
    """`[groups + 1]` int64, the start of each group of `counts` `[groups]` rows, and at the end the number of rows."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> IntArray:
    """The concatenated ranges of `counts` consecutive numbers from each of `starts`."""
    ends = np.cumsum(counts, dtype=np.int64)
    numbers: IntArray = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
    return numbers


def unshared_prefixes(paths: IntArray) -> IntArray:
    """`[paths]` int64, how many prefixes between root and leaf each path does not share with the one before it.

    Args:
        paths: `[paths, depth]` as of `TrieArrays.paths`, ascending by leaf.
    """
    unlike = np.full(len(paths), paths.shape[1] - 1)
    # It is enough to compare neighbours in the order of leaves: what two paths share, all between them share.
    unlike[1:] = np.count_nonzero(paths[1:, :-1] != paths[:-1, :-1], axis=1)
    return unlike


def find_sorted(wanted: npt.NDArray[np.integer], ascending: npt.NDArray[np.integer]) -> IntArray:
    """`[wanted]` int64, where each of some numbers stands among ascending ones; -1 for one that does not."""
    if not len(ascending):
        return np.full(len(wanted), -1)
    rows = np.searchsorted(ascending, wanted).clip(max=len(ascending) - 1)
    return np.where(ascending[rows] == wanted, rows, -1)


def find_in_array(wanted: IntArray, among: IntArray) -> IntArray:
    """As `find_sorted`, among numbers in any order; `drafting.device.find_nodes` does it on the device."""
    order = among.argsort()
    # What does not stand there is the last.
    found: IntArray = np.append(order, -1)[find_sorted(wanted, among[order])]
    return found


def common_prefix(one: IntArray, other: IntArray) -> int:
    """Number of numbers at the beginning of two arrays `[numbers]` that are equal."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
