"""Raised proposals: the draft's proposals of several requests in a new order, in which some of them count for more.

Contract: tensors in, tensors out, fixed shapes, no read to the host. Only the order changes: every proposal keeps the draft's own score,
and proposals below it are scored from that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import FloatArray, IntArray
from drafting.beam.expand import Selection
from drafting.device import concat, on_device


@dataclass(frozen=True)
class Raised:
    """The proposals whose scores are raised, and by how much.

    Attributes:
        nodes: for each request, `[n]` int64 trie nodes, ascending; perhaps none.
        bonuses: `[requests]` float32 nats.
    """

    nodes: Sequence[IntArray]
    bonuses: FloatArray

    def rank(self, selection: Selection, trie_nodes: int) -> tuple[Selection, Tensor]:
        """The selection, ordered by its ranking with bonuses, and that ranking, `[requests, k]` float32. Equal ones keep their order.

        Args:
            trie_nodes: number of nodes of the trie.
        """
        device, requests = selection.nodes.device, len(self.nodes)
        if not any(len(nodes) for nodes in self.nodes):
            return selection, selection.ranking
        # The nodes of each request are shifted by a range of their own, so that one sorted row holds what is raised for all. A missing
        # proposal (-1) becomes a leaf in the range of the request before, and no leaf is raised.
        starts = trie_nodes * np.arange(requests)
        keys = on_device(concat([nodes + start for nodes, start in zip(self.nodes, starts.tolist(), strict=True)]), device)
        wanted = selection.nodes + on_device(starts, device)[:, None]
        found = keys.take(torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)) == wanted
        raised = selection.ranking + found * on_device(self.bonuses, device)[:, None]
        ranking, order = raised.sort(dim=1, descending=True, stable=True)
        scores = None if selection.scores is None else selection.scores.gather(1, order)
        parents, nodes, cum_log_probs = (
            table.gather(1, order) for table in (selection.parent_slots, selection.nodes, selection.cum_log_probs)
        )
        return Selection(parents, nodes, cum_log_probs, scores), ranking
