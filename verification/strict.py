"""Strict top-K verification: a level is accepted exactly when every prefix that the target selects was drafted.

Invariant: the selection is the target's own, made by the same `expand_beam` that a plain search uses on the same log-probabilities; the
draft only decides whether the next level's log-probabilities are at hand already. The list therefore equals plain beam search's, whatever
was drafted (paper, section 3.1).
"""

import torch
from torch import Tensor


def find_drafted(selected: Tensor, drafted: Tensor) -> Tensor:
    """Where each selected prefix stands among the drafted ones.

    A prefix is named by its trie node, so that a hit is the same prefix with the same ancestors.

    Args:
        selected: `[requests, k]` int64 trie nodes; -1 pads.
        drafted: `[requests, nodes]` int64 trie nodes, distinct within a request; -2 pads.

    Returns:
        `[requests, k]` int64 places in `drafted`; -1 where the prefix was not drafted.
    """
    if not drafted.shape[1]:
        return torch.full_like(selected, -1)
    same = selected[:, :, None] == drafted[:, None, :]
    return same.int().argmax(2).masked_fill_(~same.any(2), -1)
