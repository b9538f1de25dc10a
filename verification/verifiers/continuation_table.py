"""What the target said: the log-probabilities of the continuations of every tree node that it has scored.

Invariant: a row is written once, right after the forward that computed the node, and read as often as the search asks; so a node that
survives a rejected round is never computed twice.
"""

import torch
from torch import Tensor

from drafting.beam.expand import Continuations, Frontier, continuations
from drafting.errors import SetupError
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie
from verification.request import MAX_BEAM_WIDTH

TABLE_BYTES = 128 * 2**20
MOST_TABLE_BYTES = 8 * TABLE_BYTES
MOST_NODES = 16384


def node_capacity(trie: ItemTrie) -> int:
    """How many tree nodes the table holds: as many as fit its memory, and at least what the widest request needs to run alone."""
    fewest = 1 + MAX_BEAM_WIDTH * (trie.depth - 1)
    return max(fewest, min(MOST_NODES, TABLE_BYTES // (4 * max(trie.max_children))))


class CatalogTooLarge(SetupError):
    """A catalog whose continuations find no memory; the message is a sentence."""


def table_fits(trie: ItemTrie, nodes: int) -> bool:
    """Whether a catalog may be served with so many node slots, which another catalog has chosen."""
    return nodes > MAX_BEAM_WIDTH * (trie.depth - 1) and 4 * nodes * max(trie.max_children) <= MOST_TABLE_BYTES


class ContinuationTable:
    """Log-probabilities of the children of scored nodes, one row per node slot (slots below `nodes`)."""

    def __init__(self, trie: ItemTrie, nodes: int, device: torch.device) -> None:
        self._trie = trie
        self._log_probs = torch.zeros(nodes, max(trie.max_children), device=device)

    def write(self, slots: Tensor, trie_nodes: Tensor, logits: Tensor, eligible: BatchEligibility | None) -> None:
        """Keeps what a forward said of the nodes in `slots`, whose places in the trie are `trie_nodes`; see `continuations`."""
        found = continuations(self._trie, trie_nodes, logits, self._log_probs.shape[1], eligible)
        self._log_probs.index_copy_(0, slots, found.log_probs)

    def read(self, frontier: Frontier, trie_nodes: Tensor, width: int) -> Continuations:
        """The continuations of nodes written before, no more than `width` each."""
        log_probs = self._log_probs.index_select(0, frontier.slots)[:, :width]
        return Continuations(self._trie.first_child.index_select(0, trie_nodes), log_probs)
