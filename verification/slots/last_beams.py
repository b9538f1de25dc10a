"""The prefixes that the target kept, and nearly kept, in each user's last search: drafts for the next one.

Invariant: memory is bounded, by nodes and by what a user takes beside them, and the users asked for longest ago are forgotten first.
Prefixes are kept by their tokens, which mean the same in all versions of a catalog; in another version, exactly those that its trie has are
found again. A search that was under way when its user was forgotten does not bring the user back.
"""

from dataclasses import dataclass
from itertools import pairwise
from weakref import ReferenceType, ref

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.lru import LruMap
from drafting.trie.arrays import ROOT, children_of, find_sorted
from drafting.trie.item_trie import ItemTrie

# Nodes that are kept for all users together; a node takes 12 bytes. Each user counts as `USER_NODES` nodes more, for what else is kept.
MOST_NODES = 2**22
USER_NODES = 64
NONE: IntArray = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class LastBeams:
    """The prefixes of one user.

    Attributes:
        trie: the trie that `nodes` are of, which is kept alive by whoever serves it.
        nodes: `[n]` int32, ascending; with each node all nodes above it but the root.
        tokens: `[n]` int32, the token on the edge to each node.
        parents: `[n]` int32, the index of each node's parent in `nodes`; -1 if that is the root.
        levels: for each depth from 1 on, the number of nodes.
    """

    trie: "ReferenceType[ItemTrie]"
    nodes: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    parents: npt.NDArray[np.int32]
    levels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.nodes)

    @classmethod
    def of(cls, trie: ItemTrie, nodes: IntArray) -> "LastBeams":
        """The prefixes that end in `nodes`, `[n]` int64, ascending and with all nodes above them."""
        ends = np.searchsorted(nodes, trie.level_starts[1:-1])
        parents = np.full(len(nodes), -1)
        for depth, (first, last) in enumerate(pairwise(ends[1:].tolist()), start=2):
            parents[first:last] = np.searchsorted(nodes, trie.parents(nodes[first:last], depth))
        tokens = trie.token_ids[trie.code[nodes]].astype(np.int32)
        return cls(ref(trie), nodes.astype(np.int32), tokens, parents.astype(np.int32), tuple(np.diff(ends).tolist()))

    def found_in(self, trie: ItemTrie) -> IntArray:
        """The nodes of another trie with the same tokens, ascending; none if its identifiers are of another length."""
        if len(self.levels) != trie.depth - 1:
            return NONE
        codes = find_sorted(self.tokens, trie.token_ids)
        # Of each node its node in the other trie; -1 for one that is gone, below which none is left. The last entry, index -1, is the root.
        found = np.full(len(self) + 1, -1)
        found[-1] = ROOT
        ends = np.cumsum([0, *self.levels])
        for first, last in pairwise(ends.tolist()):
            there = first + np.flatnonzero(found[self.parents[first:last]] >= 0)
            children, rows = children_of(trie.first_child, found[self.parents[there]])
            same = trie.code[children] == codes[there[rows]]
            found[there[rows[same]]] = children[same]
        return np.sort(found[:-1][found[:-1] >= 0])


class LastBeamsStore:
    """The last beams of all users, by the key of their requests."""

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        self._kept: LruMap[str, LastBeams] = LruMap(most_nodes, _size)

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: str, trie: ItemTrie, nodes: IntArray) -> None:
        """Replace what is kept for a key, unless it is more than may be kept in all."""
        if 0 < len(nodes) <= self._kept.most - USER_NODES:
            self._kept.keep(key, LastBeams.of(trie, nodes))

    def find(self, key: str, trie: ItemTrie) -> IntArray:
        """The nodes of a trie that are kept for a key, `[n]` int64, ascending; with each node all nodes above it but the root."""
        kept = self._kept.get(key)
        if kept is None:
            return NONE
        return kept.nodes.astype(np.int64) if kept.trie() is trie else kept.found_in(trie)

    def forget(self, key: str) -> None:
        """Forget one key."""
        self._kept.forget(key)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _size(kept: LastBeams) -> int:
    return USER_NODES + len(kept)
