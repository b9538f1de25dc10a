"""Coverage loss (AtSpeed-C): the rank in the draft's beam of the continuations that the target's beam keeps.

Invariant: as in the beam search, continuations of a level compete by cumulative log-probability over the whole vocabulary, among all
children that the trie has for the nodes of the level. The last level is not drafted and does not count.
"""

import numpy as np
import torch
from torch import Tensor

from drafting.alignment import objectives
from drafting.alignment.data.samples import Batch
from drafting.alignment.levels import LevelCodes
from drafting.alignment.settings import DraftSettings
from drafting.alignment.teacher.scores import dense
from drafting.trie.item_trie import ItemTrie

NEGATIVE_INFINITY = float("-inf")


class CoverageLevels:
    """Computes rows of competing continuations from the nodes of tree batches."""

    def __init__(self, trie: ItemTrie, levels: LevelCodes) -> None:
        self._trie = trie
        self._tokens = [torch.from_numpy(tokens) for tokens in levels.tokens]
        token, starts = trie.token.cpu().numpy(), trie.level_starts
        codes = [levels.codes(depth, token[starts[depth + 1] : starts[depth + 2]]) for depth in range(trie.depth)]
        self._code_of_node = torch.from_numpy(np.concatenate([[0], *codes]))

    def loss(self, logits: Tensor, batch: Batch, settings: DraftSettings) -> Tensor:
        """The loss of the trees in a batch, as the mean over the drafted levels.

        Args:
            logits: `[nodes, vocabulary]`, logits at each node.
        """
        scores, truth = torch.zeros(len(logits), device=logits.device), torch.zeros(len(logits), device=logits.device)
        losses = []
        for level in range(self._trie.depth - 1):
            nodes = (batch["node_level"] == level).nonzero()[:, 0]
            drafted, taught = self._continuations(logits, batch, nodes, level)
            drafted, taught = drafted + scores[nodes, None], taught + truth[nodes, None]
            rows, wanted = self._per_tree(drafted, taught, batch["node_tree"][nodes], settings.beam_width)
            losses.append(objectives.coverage(rows, wanted, settings.reach, settings.margin))
            scores, truth = self._descend(scores, drafted, nodes, batch, level), self._descend(truth, taught, nodes, batch, level)
        return torch.stack(losses).mean()

    def _continuations(self, logits: Tensor, batch: Batch, nodes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities of draft and teacher for the codes of each node, `[nodes, codes]`; -inf where the trie has no such child."""
        tokens = self._tokens[level].to(logits.device)
        drafted = logits[nodes].log_softmax(1)[:, tokens]
        taught = dense(batch["node_codes"][nodes], batch["node_probabilities"][nodes], len(tokens)).clamp(min=objectives.SMALLEST).log()
        exists = self._valid(batch["node_trie"][nodes], level, len(tokens))
        return drafted.masked_fill(~exists, NEGATIVE_INFINITY), taught.masked_fill(~exists, NEGATIVE_INFINITY)

    def _valid(self, trie_nodes: Tensor, level: int, size: int) -> Tensor:
        """`[nodes, size]` bool, True for codes that lead to a child of the node."""
        device = trie_nodes.device
        first_child, codes = self._trie.child_offsets.to(device), self._code_of_node.to(device)
        children = first_child[trie_nodes][:, None] + torch.arange(self._trie.max_children[level], device=device)
        exists = children < first_child[trie_nodes + 1][:, None]
        columns = codes[children.clamp(max=self._trie.nodes - 1)].masked_fill(~exists, size)
        return torch.zeros(len(trie_nodes), size + 1, dtype=torch.bool, device=device).scatter_(1, columns, exists)[:, :size]

    def _per_tree(self, drafted: Tensor, taught: Tensor, trees: Tensor, beam_width: int) -> tuple[Tensor, Tensor]:
        """All continuations of a level, a row per tree, `[trees, continuations]`: scores of the draft, and which ones the teacher keeps."""
        _, owner, counts = torch.unique_consecutive(trees, return_inverse=True, return_counts=True)
        rank = torch.arange(len(trees), device=trees.device) - (counts.cumsum(0) - counts)[owner]
        shape = (len(counts), int(counts.max()), drafted.shape[1])
        rows = drafted.new_full(shape, NEGATIVE_INFINITY).index_put((owner, rank), drafted).flatten(1)
        best = taught.new_full(shape, NEGATIVE_INFINITY).index_put((owner, rank), taught).flatten(1)
        kept = best.topk(min(beam_width, best.shape[1]), dim=1)
        wanted = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, kept.indices, kept.values.isfinite())
        return rows, wanted

    def _descend(self, scores: Tensor, continued: Tensor, nodes: Tensor, batch: Batch, level: int) -> Tensor:
        """Set the cumulative scores of the nodes of the next level to those of their parents' continuations."""
        children = (batch["node_level"] == level + 1).nonzero()[:, 0]
        row = torch.zeros_like(batch["node_level"])
        row[nodes] = torch.arange(len(nodes), device=row.device)
        codes = self._code_of_node.to(nodes.device)[batch["node_trie"][children]]
        return scores.index_put((children,), continued[row[batch["node_parent"][children]], codes])
