"""Taken codes: the codes with which the target's lists continue from the nodes of their trees.

Invariant: only what lists take is held, so memory grows with the lists, whatever the size of a level.
"""

from dataclasses import dataclass

import numpy as np

from drafting.array_types import IntArray
from drafting.trie.arrays import ranges


@dataclass(frozen=True)
class TakenCodes:
    """Codes by node, in CSR form.

    Attributes:
        offsets: `[nodes + 1]`, the first code of each node.
        codes: `[codes]` int64, ascending within a node.
        lists: `[codes]` int64, number of lists that continue from the node with each code.
    """

    offsets: IntArray
    codes: IntArray
    lists: IntArray

    @classmethod
    def count(cls, nodes: int, node: IntArray, code: IntArray, widest: int) -> "TakenCodes":
        """Count continuations of `nodes` nodes, each of them a `node` and one of `widest` codes, `[continuations]` each."""
        keys, lists = np.unique(node * widest + code, return_counts=True)
        owner, codes = np.divmod(keys, widest)
        return cls(np.searchsorted(owner, np.arange(nodes + 1)).astype(np.int64), codes, lists)

    def of(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """All codes that are taken from `nodes`, and for each of them the row of its node in `nodes`."""
        counts = np.diff(self.offsets)[nodes]
        return self.codes[ranges(self.offsets[nodes], counts)], np.repeat(np.arange(len(nodes)), counts)

    def lists_with(self, codes: IntArray) -> IntArray:
        """Number of lists that continue from each node with each of its `codes`, `[nodes, some]`."""
        size = 1 + int(max(codes.max(initial=0), self.codes.max(initial=0)))
        owner = np.repeat(np.arange(len(codes)), np.diff(self.offsets))
        # The last key is beyond all that are looked up.
        keys = np.append(owner * size + self.codes, len(codes) * size)
        wanted = np.arange(len(codes))[:, None] * size + codes
        found = np.searchsorted(keys, wanted)
        counted: IntArray = np.where(keys[found] == wanted, np.append(self.lists, 0)[found], 0)
        return counted
