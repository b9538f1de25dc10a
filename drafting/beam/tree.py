"""The token tree of speculative decoding: the prefixes of all running requests.

Invariant: a node *is* its key/value slot. Tokens, scores and ancestors are tables indexed by slot, so a level of all requests is appended
by one scatter, and nothing is ever moved.
"""

import torch
from torch import Tensor


class TokenTree:
    """Tables over all slots, each of a prompt token or a tree node.

    Attributes:
        token: `[slots]` int64.
        cum_log_prob: `[slots]` float32, cumulative log-probability of the prefix by the model that last selected it.
        score: `[slots]` float32, what a sampled search ranks the prefix by: its perturbed log-probability.
        ancestors: `[slots, depth]` int64, indices in the sequence of ancestors and itself; the last one repeats.
    """

    def __init__(self, slots: int, depth: int, device: torch.device) -> None:
        self.token = torch.zeros(slots, dtype=torch.int64, device=device)
        self.cum_log_prob = torch.zeros(slots, dtype=torch.float32, device=device)
        self.score = torch.zeros(slots, dtype=torch.float32, device=device)
        self.ancestors = torch.zeros(slots, depth, dtype=torch.int64, device=device)
        self._levels = torch.arange(1, depth + 1, device=device)

    def add_prompt(self, slots: Tensor, tokens: Tensor, indices: Tensor) -> None:
        """Write prompt tokens, `[tokens]` int64 each; the last one becomes the root of its request's tree."""
        self.token[slots] = tokens
        self.ancestors[slots] = indices[:, None]
        # Indexing by the slot itself would read it.
        self.cum_log_prob.index_fill_(0, slots[-1:], 0.0)
        self.score.index_fill_(0, slots[-1:], 0.0)

    def add_nodes(self, slots: Tensor, *, parents: Tensor, tokens: Tensor, depths: Tensor, indices: Tensor) -> None:
        """Write nodes below known ones, `[nodes]` int64 each; parents are slots, depths start at 1."""
        self.token.index_copy_(0, slots, tokens)
        inherited = self._levels < depths[:, None]
        self.ancestors.index_copy_(0, slots, torch.where(inherited, self.ancestors.index_select(0, parents), indices[:, None]))

    def set_scores(self, slots: Tensor, cum_log_probs: Tensor, scores: Tensor | None) -> None:
        """Write `[nodes]` float32 each; no scores where no search samples."""
        self.cum_log_prob.index_copy_(0, slots, cum_log_probs)
        if scores is not None:
            self.score.index_copy_(0, slots, scores)
