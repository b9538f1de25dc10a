"""The trie on the model's device: the constraint of constrained decoding, in token ids.

Invariant: nodes are numbered as in `TrieArrays`, and codes are in the order of the model's token ids, so the children of a node are
consecutive nodes in the order of their tokens. A decode step reads two device tensors in CSR form (`token`, `first_child`); items and
parents are needed on the host only and stay in `arrays`, which may lie in a memory-mapped file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.trie.arrays import ROOT, Rows, TrieArrays
from drafting.trie.csr import ranges
from drafting.trie.node_mask import NodeMask

__all__ = ["ROOT", "ItemTrie"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemTrie:
    """The trie as offset tensors; the root is node 0 and counts as a node.

    Attributes:
        token: `[nodes + max(max_children)]` int64, the token on the edge to each node (0 for the root), padded with zeros so that a window
            of `max(max_children)` tokens can be read from any node on.
        first_child: `[nodes + 1]` int64; the children of node n are first_child[n] up to first_child[n + 1].
        arrays: the trie on the host.
    """

    token: Tensor
    first_child: Tensor
    arrays: TrieArrays

    @classmethod
    def of(cls, arrays: TrieArrays, token_ids: IntArray, device: torch.device | str = "cpu") -> "ItemTrie":
        """Put the trie of a catalog on the device of a model.

        Args:
            arrays: trie of a catalog that is `Catalog.ordered` by these ids.
            token_ids: `[codes]`, token id of each code, ascending.
        """
        token = np.zeros(arrays.nodes + max(arrays.max_children), np.int64)
        np.take(token_ids, arrays.code[1:], out=token[1 : arrays.nodes])
        return cls(torch.from_numpy(token).to(device), torch.from_numpy(arrays.first_child).to(device), arrays)

    @classmethod
    def build(cls, identifiers: IntArray, device: torch.device | str = "cpu") -> "ItemTrie":
        """Build the trie of `identifiers`, `[items, depth]` token ids."""
        token_ids, codes = np.unique(identifiers, return_inverse=True)
        return cls.of(TrieArrays.build(codes.reshape(identifiers.shape).astype(np.uint32)), token_ids.astype(np.int64), device)

    @property
    def depth(self) -> int:
        """Tokens per identifier."""
        return self.arrays.depth

    @property
    def nodes(self) -> int:
        """Number of nodes, the root included."""
        return self.arrays.nodes

    @property
    def level_starts(self) -> tuple[int, ...]:
        """First node of each depth, and at the end the number of nodes; depth 0 is the root."""
        return self.arrays.level_starts

    @property
    def max_children(self) -> tuple[int, ...]:
        """For each depth above the leaves, the largest number of children of one node."""
        return self.arrays.max_children

    @property
    def items(self) -> int:
        """Number of items of the catalog."""
        return len(self.arrays.items)

    @property
    def leaf_of_item(self) -> Rows:
        """`[items]` int32, the leaf of each item, counted from the first leaf."""
        return self.arrays.leaf_of_item

    def level_size(self, depth: int) -> int:
        """Number of nodes at `depth`: distinct prefixes of that length."""
        return self.arrays.level_size(depth)

    @property
    def mean_fan_out(self) -> tuple[float, ...]:
        """Mean number of children (branching factor) at each depth above the leaves."""
        return tuple(self.level_size(depth + 1) / self.level_size(depth) for depth in range(self.depth))

    def children(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The first child of each node and the end of its range of children, `[nodes]` int64 each, on the device."""
        first, end = self._ranges.index_select(0, nodes).unbind(1)
        return first, end

    def padding_mask(self, first: Tensor, end: Tensor, width: int) -> Tensor:
        """The padding mask of children: `[nodes, width]` float32, 0 for each child and -inf after the last.

        Args:
            first, end: `[nodes]`, from `children`.
            width: no more than the most children of a node, and no less than any of these has.
        """
        most = len(self._edge) // 2
        return self._edge.unfold(0, width, 1).index_select(0, (first - end).add_(most))

    @cached_property
    def _ranges(self) -> Tensor:
        """`[nodes, 2]`, first child and end of the children of each node; a view of `first_child`."""
        return self.first_child.unfold(0, 2, 1)

    @cached_property
    def _edge(self) -> Tensor:
        """`max(max_children)` zeros and then as many -inf; every row of a padding mask is a window of it."""
        edge = torch.zeros(2, max(self.max_children), device=self.token.device)
        edge[1] = float("-inf")
        return edge.flatten()

    def items_of(self, node: int) -> Rows:
        """Catalog indices of the items below a node; ascending if the node is a leaf."""
        return self.arrays.items_of(node)

    def excluded_nodes(self, excluded_items: Sequence[int] | IntArray, mask: NodeMask | None = None) -> IntArray:
        """The nodes (never the root) below which all items, or all items that `mask` allows, are excluded; ascending.

        Excluding inner nodes too keeps a beam from entering a subtree without eligible items. Masking items at the last level alone could
        leave it there with nothing to return.
        """
        if not len(excluded_items):
            return np.empty(0, np.int64)
        excluded = np.unique(np.asarray(excluded_items, np.int64))
        if mask is not None:
            excluded = excluded[mask.items.contains(excluded)]
        if not len(excluded):
            return np.empty(0, np.int64)
        leaves, gone = np.unique(self.leaf_of_item[excluded], return_counts=True)
        nodes = leaves[gone == self._eligible_items(leaves, mask)].astype(np.int64) + self.level_starts[-2]
        found = [nodes]
        for depth in range(self.depth, 1, -1):
            parents, gone = np.unique(self.arrays.parents(nodes, depth), return_counts=True)
            nodes = parents[gone == self._allowed_children(parents, mask)]
            found.append(nodes)
        return np.concatenate(found[::-1])

    def _eligible_items(self, leaves: Rows, mask: NodeMask | None) -> IntArray:
        """Number of items of each leaf that the mask allows, `[leaves]`."""
        starts = self.arrays.first_item[leaves].astype(np.int64)
        counts = self.arrays.first_item[leaves + 1] - starts
        if mask is None:
            return counts
        below = self.arrays.items[ranges(starts, counts)]
        return np.add.reduceat(mask.items.contains(below).astype(np.int64), np.cumsum(counts) - counts)

    def _allowed_children(self, nodes: IntArray, mask: NodeMask | None) -> IntArray:
        """Number of children of each node that the mask allows, `[nodes]`."""
        first, last = self.arrays.first_child[nodes], self.arrays.first_child[nodes + 1]
        return last - first if mask is None else mask.rank(last) - mask.rank(first)
