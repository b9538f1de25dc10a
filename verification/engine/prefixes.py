"""Prefixes that are put into trees on the host: given drafts, and the candidates of blends and scores.

Invariant: a prefix that is in a tree already is not added again, and a node's ancestors are those of its prefix. So it is scored as if the
target's beam had reached it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.tree import SequenceState, TokenTree
from drafting.device import on_device
from drafting.trie.arrays import find_in_array
from drafting.trie.item_trie import ItemTrie
from verification.slots.pool import SlotPool


@dataclass(frozen=True)
class Prefixes:
    """Prefixes to add to one sequence.

    Attributes:
        nodes: `[n]` int64 trie nodes between root and leaves, ascending; with each node all nodes above it but the root.
        origins: `[n]` int64, the `Origin` of each node, for those that are new; or one for all.
    """

    sequence: SequenceState
    nodes: IntArray
    origins: IntArray | int

    @property
    def known(self) -> IntArray:
        """`[n]` int64 indices in the sequence; -1 for a prefix that is not there."""
        first = self.sequence.root + 1
        found = find_in_array(self.nodes, self.sequence.trie_nodes[first:])
        return np.where(found < 0, -1, first + found)


def add_prefixes(tree: TokenTree, trie: ItemTrie, pool: SlotPool, grown: Sequence[Prefixes]) -> list[int]:
    """Add the prefixes that are not in their sequence yet, in one transfer; return how many these are for each sequence."""
    rows = [_add(trie, pool, prefixes) for prefixes in grown]
    sent = on_device(np.concatenate(rows), tree.token.device)
    slots, nodes = sent[:, 0], sent[:, 1]
    tree.trie_node.index_copy_(0, slots, nodes)
    tree.token.index_copy_(0, slots, trie.token.index_select(0, nodes))
    tree.ancestors.index_copy_(0, slots, sent[:, 2:])
    return [len(each) for each in rows]


def _add(trie: ItemTrie, pool: SlotPool, prefixes: Prefixes) -> IntArray:
    """Append the new nodes to a sequence; return `[new, 2 + depth]`: slot, trie node and indices of ancestors of each."""
    sequence, nodes, indices = prefixes.sequence, prefixes.nodes, prefixes.known
    new = indices < 0
    depths = np.searchsorted(trie.level_starts, nodes, side="right") - 1
    slots = pool.allocate(int(np.count_nonzero(new)))
    origins = prefixes.origins if isinstance(prefixes.origins, int) else prefixes.origins[new]
    indices[new] = sequence.append(slots, depths[new], nodes[new], origins)
    ancestors = np.repeat(indices[:, None], trie.depth, axis=1)
    ends = np.searchsorted(depths, np.arange(1, trie.depth + 1))
    for depth in range(2, trie.depth):
        below = slice(ends[depth - 1], ends[depth])
        above = np.searchsorted(nodes, trie.parents(nodes[below], depth))
        ancestors[below, : depth - 1] = ancestors[above, : depth - 1]
    return np.column_stack([slots, nodes[new], ancestors[new]])
