"""The forward of a step: the target computes what is new of all requests together, and what it says is kept by node.

Invariant: a forward holds texts, searches and candidates alike and changes none of them but for what it counts as computed; each row is
projected onto what its own search may be given.
"""

from collections.abc import Mapping, Sequence

from drafting.beam.continuations import RowKinds
from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.model import TreeModel
from drafting.beam.tree import TokenTree
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie
from verification.engine.think import ThinkStep
from verification.search import BeamSearch
from verification.verifiers.level import ContinuationTable


class ForwardStep:
    """The forwards of an engine's target."""

    def __init__(self, target: TreeModel, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, thinking: ThinkStep) -> None:
        self._target = target
        self._tree = tree
        self._trie = trie
        self._table = table
        self._thinking = thinking

    def run(self, searches: Sequence[BeamSearch], pieces: Mapping[BeamSearch, int]) -> int:
        """Run the target over all that it has not computed, and return the number of tokens.

        Args:
            pieces: searches of which only so many nodes are computed.
        """
        parts = [ForwardPart.uncomputed(search.sequence, pieces.get(search)) for search in searches]
        batch = forward_batch(self._tree, parts + self._thinking.parts, self._target.has_encoder)
        rows = self._thinking.choose(self._target.score(batch))
        if not parts:
            return batch.size
        slots = batch.at_outputs(batch.slots)[: len(rows)]
        eligible = BatchEligibility.of([search.eligibility for search in searches], self._trie.nodes, [part.outputs for part in parts])
        kinds = RowKinds.of(parts, [search.normalise for search in searches])
        self._table.write(slots, self._tree.trie_node.index_select(0, slots), rows, kinds, eligible)
        for search, part in zip(searches, parts, strict=True):
            part.sequence.computed += len(part.indices)
            search.target_forwards += 1
        return batch.size
