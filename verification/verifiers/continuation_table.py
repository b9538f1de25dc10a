"""Log-probabilities of the continuations of all tree nodes that the target has computed.

Invariant: a row is written once, right after the forward that computed the node; so a node that survives a rejected round is never computed
twice.
"""

import torch
from torch import Tensor

from drafting.beam.ranking import continuation_log_probs
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie


class ContinuationTable:
    """A row per node slot: `[nodes, most children]` float32, of each child given the node."""

    def __init__(self, trie: ItemTrie, nodes: int, device: torch.device) -> None:
        self._trie = trie
        self._log_probs = torch.zeros(nodes, max(trie.max_children), device=device)

    def write(self, slots: Tensor, trie_nodes: Tensor, logits: Tensor, eligible: BatchEligibility | None) -> None:
        """Keep a forward's `logits` after nodes; see `continuation_log_probs`."""
        log_probs = continuation_log_probs(self._trie, trie_nodes, logits, self._log_probs.shape[1], eligible)
        self._log_probs.index_copy_(0, slots, log_probs)

    def read(self, slots: Tensor, width: int) -> Tensor:
        """`[slots, width]` of nodes written before."""
        return self._log_probs.index_select(0, slots)[:, :width]
