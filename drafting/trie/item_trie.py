"""The trie on the model's device: the constraint of constrained decoding, in token ids.

Invariant: nodes are numbered as in `TrieArrays`, and codes are in the order of the model's token ids, so the children of a node are
consecutive nodes in the order of their tokens. A decode step reads two device tensors in CSR form (`token`, `child_offsets`); all other
arrays are needed on the host only and may lie in a memory-mapped file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import Int32Array, IntArray
from drafting.trie.arrays import ROOT, TrieArrays, ranges
from drafting.trie.node_mask import NodeMask
from drafting.trie.token_set import TokenSet

__all__ = ["ROOT", "ItemTrie"]


@dataclass(frozen=True, eq=False)
class ItemTrie(TrieArrays):
    """A trie with its tokens and child ranges on the device.

    Attributes:
        token: `[nodes + max(max_children)]` int64, the token on the edge to each node (0 for the root), padded with the catalog's first
            token so that a window of `max(max_children)` tokens can be read from any node below the root on.
        child_offsets: `[nodes + 1]` int64, `first_child` on the device.
        token_ids: `[codes]` int64 on the host, the token of each code, ascending.
        root_tokens: the tokens that follow the root, on the device before any step needs them.
    """

    token: Tensor
    child_offsets: Tensor
    token_ids: IntArray
    root_tokens: TokenSet

    @classmethod
    def of(cls, arrays: TrieArrays, token_ids: IntArray, device: torch.device | str = "cpu") -> "ItemTrie":
        """Put the trie of a catalog on the device of a model.

        Args:
            arrays: trie of a catalog that is `Catalog.ordered` by these ids.
            token_ids: `[codes]`, token id of each code, ascending.
        """
        token = np.full(arrays.nodes + max(arrays.max_children), token_ids[0], np.int64)
        token[ROOT] = 0
        np.take(token_ids, arrays.code[1:], out=token[1 : arrays.nodes])
        first_child = torch.from_numpy(arrays.first_child)
        root_tokens = TokenSet(token[1 : arrays.level_starts[2]], torch.device(device))
        return cls(
            **vars(arrays),
            token=torch.from_numpy(token).to(device),
            child_offsets=first_child.to(device),
            token_ids=token_ids,
            root_tokens=root_tokens,
        )

    @classmethod
    def build(cls, identifiers: IntArray, device: torch.device | str = "cpu") -> "ItemTrie":
        """Build the trie of `identifiers`, `[items, depth]` token ids."""
        token_ids, codes = np.unique(identifiers, return_inverse=True)
        return cls.of(TrieArrays.from_codes(codes.reshape(identifiers.shape).astype(np.uint32)), token_ids.astype(np.int64), device)

    @property
    def mean_fan_out(self) -> tuple[float, ...]:
        """Mean number of children (branching factor) at each depth above the leaves."""
        return tuple(self.level_size(depth + 1) / self.level_size(depth) for depth in range(self.depth))

    def children(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The first child of each node and the end of its range of children, `[nodes]` int64 each, on the device."""
        first, end = self._ranges.index_select(0, nodes).unbind(1)
        return first, end

    @cached_property
    def level_tokens(self) -> tuple[TokenSet, ...]:
        """For each depth above the leaves, the tokens that follow some prefix of that length."""
        return self.root_tokens, *(self._tokens_at(depth + 1) for depth in range(1, self.depth))

    def _tokens_at(self, depth: int) -> TokenSet:
        """The tokens on the edges to the nodes of a depth, without a sort: codes are in the order of their tokens."""
        first, last = self.level_starts[depth], self.level_starts[depth + 1]
        codes = self.code[first:last]
        # Some node of each code; -1 for a code that no node has.
        node_of_code = np.full(int(codes.max()) + 1, -1, np.int64)
        node_of_code[codes] = np.arange(first, last)
        nodes = torch.from_numpy(node_of_code[node_of_code >= 0]).to(self.token.device)
        return TokenSet(self.token.index_select(0, nodes).cpu().numpy(), self.token.device)

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
        """`[nodes, 2]`, first child and end of the children of each node; a view of `child_offsets`."""
        return self.child_offsets.unfold(0, 2, 1)

    @cached_property
    def _edge(self) -> Tensor:
        """`max(max_children)` zeros and then as many -inf; every row of a padding mask is a window of it."""
        edge = torch.zeros(2, max(self.max_children), device=self.token.device)
        edge[1] = float("-inf")
        return edge.flatten()

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
            parents, gone = np.unique(self.parents(nodes, depth), return_counts=True)
            nodes = parents[gone == self._allowed_children(parents, mask)]
            found.append(nodes)
        return np.concatenate(found[::-1])

    def _eligible_items(self, leaves: Int32Array, mask: NodeMask | None) -> IntArray:
        """Number of items of each leaf that the mask allows, `[leaves]`."""
        starts = self.first_item[leaves].astype(np.int64)
        counts = self.first_item[leaves + 1] - starts
        if mask is None:
            return counts
        below = self.items[ranges(starts, counts)]
        return np.add.reduceat(mask.items.contains(below).astype(np.int64), np.cumsum(counts) - counts)

    def _allowed_children(self, nodes: IntArray, mask: NodeMask | None) -> IntArray:
        """Number of children of each node that the mask allows, `[nodes]`."""
        first, last = self.first_child[nodes], self.first_child[nodes + 1]
        return last - first if mask is None else mask.rank(last) - mask.rank(first)
