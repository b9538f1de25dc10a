"""The trie of a catalog's identifiers: which tokens may follow which prefix, and which items a prefix still stands for.

Invariant: nodes are numbered level by level and, within a level, in the order of their token paths. The children of a node are therefore
neighbours, and so are the items below it; two offset arrays replace every pointer, and no Python object exists per node or per item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]

ROOT = 0


@dataclass(frozen=True)
class ItemTrie:
    """Valid continuations as offset arrays; `nodes` counts the root.

    Attributes:
        token: `[nodes]` int64, the token that leads to a node (0 for the root).
        first_child: `[nodes + 1]` int64; the children of node n are first_child[n] up to first_child[n + 1].
        level_starts: first node of each depth, and the number of nodes at the end; depth 0 is the root.
        max_children: for each depth below the last, the most children that one of its nodes has.
        items: `[items]` int64, catalog indices in the order of their identifiers.
        first_item: `[nodes]` int64, where the items below a node begin in `items`.
        item_count: `[nodes]` int64, how many items lie below a node.
        paths: `[identifiers, depth]` int64, the nodes from depth 1 down to each leaf, in leaf order.
        leaf_of_item: `[catalog items]` int64, the row of `paths` that an item ends in.
    """

    token: Tensor
    first_child: Tensor
    level_starts: tuple[int, ...]
    max_children: tuple[int, ...]
    items: IntArray
    first_item: IntArray
    item_count: IntArray
    paths: IntArray
    leaf_of_item: IntArray

    @classmethod
    def build(cls, identifiers: IntArray, device: torch.device | str = "cpu") -> "ItemTrie":
        """Builds the trie of `identifiers`, `[items, depth]` token ids, by sorting them and comparing neighbours."""
        items, depth = identifiers.shape
        order = np.lexsort(identifiers.T[::-1])
        ordered = identifiers[order]
        # starts_prefix[i, d]: the d + 1 first tokens of row i differ from those of the row before.
        starts_prefix = np.ones((items, depth), bool)
        np.logical_or.accumulate(ordered[1:] != ordered[:-1], axis=1, out=starts_prefix[1:])

        level_sizes = starts_prefix.sum(axis=0)
        level_starts = np.concatenate([[0, 1], 1 + np.cumsum(level_sizes)])
        node_of_row = np.cumsum(starts_prefix, axis=0) - 1 + level_starts[1:-1]
        first_rows = [np.zeros(1, np.int64), *(np.flatnonzero(starts_prefix[:, level]) for level in range(depth))]

        token, first_item, item_count, first_child = [np.zeros(1, np.int64)], [], [], []
        for level, rows in enumerate(first_rows):
            first_item.append(rows)
            item_count.append(np.diff(rows, append=items))
            if level < depth:
                token.append(ordered[first_rows[level + 1], level])
                first_child.append(node_of_row[rows, level])
            else:
                first_child.append(np.full(len(rows) + 1, level_starts[-1], np.int64))
        children = np.concatenate(first_child)
        fanout = np.diff(children)

        leaf_of_item = np.empty(items, np.int64)
        leaf_of_item[order] = node_of_row[:, -1] - level_starts[-2]
        return cls(
            token=torch.from_numpy(np.concatenate(token)).to(device),
            first_child=torch.from_numpy(children).to(device),
            level_starts=tuple(int(start) for start in level_starts),
            max_children=tuple(int(fanout[level_starts[d] : level_starts[d + 1]].max()) for d in range(depth)),
            items=order,
            first_item=np.concatenate(first_item),
            item_count=np.concatenate(item_count),
            paths=node_of_row[first_rows[-1]],
            leaf_of_item=leaf_of_item,
        )

    @property
    def depth(self) -> int:
        """Tokens per identifier."""
        return len(self.max_children)

    @property
    def nodes(self) -> int:
        """Nodes of the trie, the root included."""
        return self.level_starts[-1]

    def level_size(self, depth: int) -> int:
        """Nodes at `depth`, the number of distinct prefixes of that length."""
        return self.level_starts[depth + 1] - self.level_starts[depth]

    @property
    def mean_fan_out(self) -> tuple[float, ...]:
        """Children per node of each depth above the leaves, on average."""
        return tuple(self.level_size(depth + 1) / self.level_size(depth) for depth in range(self.depth))

    def items_of(self, node: int) -> IntArray:
        """Catalog indices of the items below a node, in ascending order for a leaf."""
        start = self.first_item[node]
        return self.items[start : start + self.item_count[node]]

    def dead_nodes(self, excluded_items: Sequence[int] | IntArray) -> IntArray:
        """The nodes (never the root) below which every item is excluded, ascending.

        A beam that never enters them never runs out of eligible items before it must, which masking whole items at the last level
        could not promise.
        """
        if not len(excluded_items):
            return np.empty(0, np.int64)
        excluded = np.unique(np.asarray(excluded_items, np.int64))
        nodes, excluded_below = np.unique(self.paths[self.leaf_of_item[excluded]], return_counts=True)
        dead: IntArray = nodes[excluded_below == self.item_count[nodes]]
        return dead
