"""The loss of a target that is normalised over the children of each prefix."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from drafting.alignment.children import ChildrenLogProbs
from drafting.alignment.data.samples import Batch
from drafting.array_types import IntArray

# Soft labels of a batch: number of the label token among all of the batch, token and weight, each `[entries]`.
SoftLabels = Callable[[Batch], tuple[IntArray, IntArray, np.ndarray]]


class ChildrenLoss:
    """Mean cross-entropy per label, in nats, over the children of each prefix in the catalog's trie."""

    def __init__(self, log_probs: ChildrenLogProbs, smoothing: float = 0.0, soft: SoftLabels | None = None, share: float = 0.0) -> None:
        """
        Args:
            smoothing: share of each true label that is spread over all children of its prefix.
            soft: labels of a second kind, children of the same prefixes.
            share: of these in the loss, from 0 to 1.
        """
        self._log_probs, self._smoothing = log_probs, smoothing
        self._soft, self._share = soft, share

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        levels = self._log_probs(model, batch)
        true = torch.stack([part.log_probs.gather(1, part.slots[:, None])[:, 0] for part in levels]).mean()
        if self._smoothing:
            spread = torch.stack([part.log_probs.sum(1) / part.counts for part in levels]).mean()
            true = (1 - self._smoothing) * true + self._smoothing * spread
        if self._soft is None:
            return -true
        numbers, tokens, weights = self._soft(batch)
        soft = true.new_zeros(())
        for level, part in enumerate(levels):
            here = numbers % len(levels) == level
            rows, children, shares = (
                torch.from_numpy(each).to(soft.device) for each in (numbers[here] // len(levels), tokens[here], weights[here])
            )
            soft = soft + (part.log_probs[rows, self._log_probs.slots(part.prefixes[rows], children)] * shares).sum()
        soft = soft / (len(levels) * len(levels[0].counts))
        return -((1 - self._share) * true + self._share * soft)
