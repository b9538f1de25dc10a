"""Coverage of a teacher's beams: which of a tree's continuations strict verification asks for, and how the draft ranks them.

Invariant: as in the search, continuations compete by cumulative log-probability over the whole vocabulary, among all children that the
trie has for any node of a level; only prefixes that are ever drafted count, so not those of the last level.
"""

import numpy as np
import torch
from torch import Tensor

from drafting.alignment import objectives
from drafting.alignment.levels import LevelCodes
from drafting.alignment.settings import DraftSettings
from drafting.alignment.teacher.scores import dense
from drafting.alignment.tree_batch import Batch
from drafting.trie.item_trie import ItemTrie

NEGATIVE_INFINITY = float("-inf")


class CoverageLevels:
    """Tables that turn the nodes of tree batches into rows of competing continuations."""

    def __init__(self, trie: ItemTrie, levels: LevelCodes) -> None:
        self._trie = trie
        self._tokens = [torch.from_numpy(tokens) for tokens in levels.tokens]
        token, starts = trie.token.cpu().numpy(), trie.level_starts
        codes = [levels.places(depth, token[starts[depth + 1] : starts[depth + 2]]) for depth in range(trie.depth)]
        self._code_of_node = torch.from_numpy(np.concatenate([[0], *codes]))

    def loss(self, logits: Tensor, batch: Batch, settings: DraftSettings) -> Tensor:
        """AtSpeed-C of the trees in a batch, the mean over the levels that are drafted.

        Args:
            logits: `[nodes, vocabulary]` after each node.
        """
        scores, truth = torch.zeros(len(logits), device=logits.device), torch.zeros(len(logits), device=logits.device)
        losses = []
        for level in range(self._trie.depth - 1):
            nodes = (batch["node_level"] == level).nonzero()[:, 0]
            drafted, taught = self._continuations(logits, batch, nodes, level)
            drafted, taught = drafted + scores[nodes, None], taught + truth[nodes, None]
            rows, wanted = self._per_tree(drafted, taught, batch["node_tree"][nodes], settings.beam_width)
            mask = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
            losses.append(objectives.coverage(rows, wanted, mask, settings.reach, settings.margin))
            scores, truth = self._descend(scores, drafted, nodes, batch, level), self._descend(truth, taught, nodes, batch, level)
        return torch.stack(losses).mean()

    def _continuations(self, logits: Tensor, batch: Batch, nodes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities of each node's codes under draft and teacher, `[nodes, codes]`; -inf where the trie has no such child."""
        tokens = self._tokens[level].to(logits.device)
        drafted = logits[nodes].log_softmax(1)[:, tokens]
        taught = dense(batch["node_codes"][nodes], batch["node_probabilities"][nodes], len(tokens)).clamp(min=objectives.SMALLEST).log()
        exists = self._valid(batch["node_trie"][nodes], level, len(tokens))
        return drafted.masked_fill(~exists, NEGATIVE_INFINITY), taught.masked_fill(~exists, NEGATIVE_INFINITY)

    def _valid(self, trie_nodes: Tensor, level: int, size: int) -> Tensor:
        """Which codes lead to a child, `[nodes, size]` bool."""
        device = trie_nodes.device
        first_child, codes = self._trie.first_child.to(device), self._code_of_node.to(device)
        children = first_child[trie_nodes][:, None] + torch.arange(self._trie.max_children[level], device=device)
        exists = children < first_child[trie_nodes + 1][:, None]
        places = codes[children.clamp(max=self._trie.nodes - 1)].masked_fill(~exists, size)
        return torch.zeros(len(trie_nodes), size + 1, dtype=torch.bool, device=device).scatter_(1, places, exists)[:, :size]

    def _per_tree(self, drafted: Tensor, taught: Tensor, trees: Tensor, beam_width: int) -> tuple[Tensor, Tensor]:
        """All continuations of a tree's level in one row: the draft's scores, and which ones the teacher's beam keeps."""
        _, owner, counts = torch.unique_consecutive(trees, return_inverse=True, return_counts=True)
        rank = torch.arange(len(trees), device=trees.device) - (counts.cumsum(0) - counts)[owner]
        shape = (len(counts), int(counts.max()), drafted.shape[1])
        rows = drafted.new_full(shape, NEGATIVE_INFINITY).index_put((owner, rank), drafted).flatten(1)
        best = taught.new_full(shape, NEGATIVE_INFINITY).index_put((owner, rank), taught).flatten(1)
        kept = best.topk(min(beam_width, best.shape[1]), dim=1)
        wanted = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, kept.indices, kept.values.isfinite())
        return rows, wanted

    def _descend(self, scores: Tensor, continued: Tensor, nodes: Tensor, batch: Batch, level: int) -> Tensor:
        """Give the nodes one level below their cumulative scores, from those of their parents' continuations."""
        children = (batch["node_level"] == level + 1).nonzero()[:, 0]
        place = torch.zeros_like(batch["node_level"])
        place[nodes] = torch.arange(len(nodes), device=place.device)
        codes = self._code_of_node.to(nodes.device)[batch["node_trie"][children]]
        return scores.index_put((children,), continued[place[batch["node_parent"][children]], codes])
