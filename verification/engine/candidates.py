"""Log-probabilities of given candidates, for blended lists and for scores: their prefixes are a tree below the prompt.

Invariant: each prefix is computed once, in a forward that all running requests share, and a candidate's log-probability is added up from
the same table, in the same order, as that of an identifier which a search finds.
"""

from collections.abc import Sequence

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.beam.tree import Origin, SequenceState, TokenTree
from drafting.device import concat, on_device, on_host
from drafting.trie.arrays import ROOT, unshared_prefixes
from drafting.trie.item_trie import ItemTrie
from verification.engine.prefixes import Prefixes, add_prefixes
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.level import ContinuationTable


class CandidateTree:
    """Grows the trees of candidates, and reads what the target has said of them.

    Candidates are paths, `[candidates, depth]` int64: the trie nodes from depth 1 to the leaf, ascending by leaf.
    """

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, slots: EngineSlots) -> None:
        self._tree = tree
        self._trie = trie
        self._table = table
        self._slots = slots

    def grow(self, sequence: SequenceState, paths: IntArray) -> None:
        """Add the prefixes of one or more candidates to a sequence that has no nodes but its root."""
        if self._trie.depth == 1:
            return
        prefixes = Prefixes(sequence, np.unique(paths[:, :-1]), Origin.CANDIDATE)
        add_prefixes(self._tree, self._trie, self._slots.nodes, [prefixes])

    def log_probs(self, grown: Sequence[tuple[SequenceState, IntArray]]) -> list[FloatArray]:
        """`[candidates]` float32 for each sequence and its candidates, once the target has computed them; NaN where its logits were not
        finite, -inf for a candidate that the request may not have."""
        if not grown:
            return []
        places = on_device(concat([self._places(sequence, paths) for sequence, paths in grown]), self._tree.token.device)
        (steps,) = on_host([self._table.at(*places.unbind(0))])
        # Added up in the order of a search.
        totals = np.cumsum(steps.reshape(-1, self._trie.depth), axis=1)[:, -1]
        return np.split(totals, np.cumsum([len(paths) for _, paths in grown])[:-1])

    def _places(self, sequence: SequenceState, paths: IntArray) -> IntArray:
        """`[2, candidates * depth]`, where the table has each step of each candidate: the slot of the node above it, and the column."""
        above = np.column_stack([np.full(len(paths), ROOT), paths[:, :-1]])
        end = sequence.root + 1 + int(unshared_prefixes(paths).sum())
        slots = sequence.slots[sequence.root + np.searchsorted(sequence.trie_nodes[sequence.root : end], above)]
        return np.stack([slots.ravel(), (paths - self._trie.first_child[above]).ravel()])
